"""One attempt at a job or an inspection, from its claim to its end.

Belongs here: fetching inputs, holding the lease, driving the engine, storing what it makes. Does not: the engine's
process (`worker/engine`), rows (`worker/ledger`). May import `worker/engine`, `worker/ledger`, `worker/clock` and
`models`.
"""
