"""Which waiting work goes next, on which worker, and what a key may use.

Belongs here: the order of claims, fair share, resources, limits of keys. Does not: claiming
(`worker/ledger/claims.py`). May import `models/records`, `models/database`, `models/settings` and
`models/spec/body.py`.
"""
