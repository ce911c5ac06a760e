"""Who asks and what they may use: keys, scopes, rates, quotas.

Belongs here: checks that come before a request's work. Does not: the routes that manage keys (`api/keys`). May import
`api/http` and `models`.
"""
