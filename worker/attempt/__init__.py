"""One attempt at a job or an inspection, from its claim to its end.

Belongs here: fetching inputs, renewing the lease, controlling the engine, storing its results. Does not: the engine's
process (`worker/engine`), database rows (`worker/ledger`). May import `worker/engine`, `worker/cache`,
`worker/ledger`, `worker/clock` and `models`.
"""
