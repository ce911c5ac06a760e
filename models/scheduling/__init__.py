"""Scheduling: the order of waiting work, the resources it needs, and the limits of keys.

Belongs here: the order of claims, fair sharing between keys, resources, limits of keys. Does not: claiming
(`worker/ledger/claims.py`). May import `models/records`, `models/database`, `models/settings` and
`models/spec/body.py`.
"""
