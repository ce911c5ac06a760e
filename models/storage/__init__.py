"""Blobs: one interface over a local folder and S3.

Belongs here: reading, writing and listing bytes, and all storage keys. Does not: the meaning of the bytes. May import
`models/settings`.
"""
