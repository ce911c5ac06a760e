"""What the service costs compared with the bare engine, a plain copy or an empty table, behind docs/measured.md.

Belongs here: time, memory and throughput. Does not: accuracy. May import everything.
"""
