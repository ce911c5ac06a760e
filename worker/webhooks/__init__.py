"""Delivering webhooks: which are due, how they are signed and sent, and what came of a try.

Belongs here: the courier and its HTTP client. Does not: what is to be delivered (`models/webhooks/outbox.py`). May
import `models`.
"""
