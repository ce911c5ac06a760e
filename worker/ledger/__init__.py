"""All database writes of a worker.

Belongs here: claims, the writes of running attempts, and the ends of attempts. Every write of an attempt has the
attempt's number, the fencing token, in its WHERE clause: a write of an old attempt changes nothing and raises `Taken`.
All times are the database's. Does not: deciding what to write (`worker/attempt`, `worker/upkeep`). May import
`worker/clock`, `worker/devices` and `models`.
"""
