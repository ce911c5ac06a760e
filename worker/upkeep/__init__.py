"""What any worker does for all of them: lost leases, due work that nobody was told of, retention, orphaned blobs.

Belongs here: work that the sweep starts, and that any number of workers may do at once. Does not: anything that one
attempt does for itself (`worker/attempt`). May import `worker/ledger`, `worker/engine/folder.py`, `worker/clock` and
`models`.
"""
