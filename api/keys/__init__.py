"""API keys over HTTP and, with `python -m api.keys`, on the command line.

Belongs here: creating, listing, rotating and revoking keys. Does not: authenticating a request
(`api/access`). May import `api/access`, `api/http`, `api/dependencies` and `models`.
"""
