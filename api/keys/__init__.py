"""API keys over HTTP and, by `python -m api.keys`, on the command line.

Belongs here: making, listing, rotating and revoking keys. Does not: checking a key that a request carries
(`api/access`). May import `api/access`, `api/http`, `api/dependencies` and `models`.
"""
