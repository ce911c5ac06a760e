"""Rows of webhooks: deliveries and signing secrets.

Belongs here: writing a delivery in the transaction of the change that it reports. Does not: sending
(`worker/webhooks`), webhooks in a spec (`models/spec/webhook_target.py`). May import `models/records`,
`models/database` and `models/spec`.
"""
