"""Delivery of webhooks: claiming due ones, signing and sending them, and recording the result.

Belongs here: the courier and its HTTP client. Does not: writing deliveries (`models/webhooks/outbox.py`). May import
`models`.
"""
