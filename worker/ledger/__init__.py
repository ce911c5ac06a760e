"""Every row that a worker writes.

Whatever an attempt writes names its number (the fencing token) in the WHERE clause: what an old attempt writes changes
nothing, and raises `Taken`. Times are the database's.
"""
