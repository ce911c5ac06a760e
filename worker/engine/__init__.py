"""The engine as a child process: its folder, start, limits and log, and which sandbox this machine can give it.

Belongs here: starting, hearing, stopping and reaping a process. Does not: jobs, leases and rows. May import `models`.
"""
