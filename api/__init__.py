"""HTTP in; rows and a wake-up message out.

Belongs here: routes, what they accept and answer, and the SQL behind them. Does not: anything that takes longer than a
request (the worker), the spec's own rules (`models/spec`). May import `models`; never torch, never `worker`.
"""
