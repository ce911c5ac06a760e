"""Authentication, scopes, rate limits and quotas.

Belongs here: checks that run before a request is handled. Does not: the routes that manage keys (`api/keys`). May import
`api/http` and `models`.
"""
