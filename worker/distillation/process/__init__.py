"""The engine as a process among others: the pipe to the worker, the heartbeat, and the server that forks engines.

Belongs here: JSON lines, signals, fork. Does not: what an engine computes. May import nothing of the engine at import;
the fork server loads the rest when it starts.
"""
