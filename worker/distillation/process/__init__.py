"""The engine as a process: the pipe to the worker, the heartbeat, and the server that forks engines.

Belongs here: JSON lines, signals, fork. Does not: what an engine computes. Its modules import nothing of the engine; the
fork server imports the rest when it starts.
"""
