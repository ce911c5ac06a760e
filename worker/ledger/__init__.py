"""Every row that a worker writes.

Belongs here: claims, ends, and what an attempt writes meanwhile. Whatever an attempt writes names its number, the
fencing token, in the WHERE clause: what an old attempt writes changes nothing and raises `Taken`. Times are the
database's. Does not: deciding what to write (`worker/attempt`, `worker/upkeep`). May import `worker/clock`,
`worker/devices` and `models`.
"""
