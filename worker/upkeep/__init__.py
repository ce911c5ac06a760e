"""Periodic upkeep in every worker: expired leases, missed wake-up messages, retention, orphaned blobs.

Belongs here: work that the sweep starts, and that several workers may do at the same time. Does not: work of a single
attempt (`worker/attempt`). May import `worker/ledger`, `worker/engine/folder.py`, `worker/cache`, `worker/clock` and `models`.
"""
