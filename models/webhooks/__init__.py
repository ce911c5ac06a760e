"""Webhooks as rows: signing secrets, and what waits to be sent.

Belongs here: writing a delivery in the transaction of the change that it tells of. Does not: sending
(`worker/webhooks`), what a spec says of them (`models/spec/webhook_target.py`). May import `models/records`,
`models/database` and `models/spec`.
"""
