"""Blobs: one interface over a local folder and S3.

Belongs here: reading, writing and listing bytes, and the keys under which everything is kept. Does not: what the bytes
mean. May import `models/settings`.
"""
