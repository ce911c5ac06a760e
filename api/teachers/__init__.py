"""Trained networks that users upload.

Belongs here: what only teachers have. Does not: what all uploads share (`api/uploads`). May import `api/uploads`,
`api/http`, `api/dependencies` and `models`.
"""
