"""The engine as a child process: its folder, start, limits and log, and the sandbox that this machine supports.

Belongs here: starting, stopping and reaping a process, and reading its events. Does not: jobs, leases and rows. May import
`models`.
"""
