"""The REST API: handles HTTP requests, writes rows and sends wake-up messages.

Belongs here: routes, their request and response bodies, and the SQL behind them. Does not: anything that takes longer
than a request (the worker), the rules of a spec (`models/spec`). May import `models`; never torch, never `worker`.
"""
