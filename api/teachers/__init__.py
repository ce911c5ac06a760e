"""Trained networks that users upload.

Belongs here: what is specific to teachers. Does not: what all uploads share (`api/uploads`). May import `api/uploads`,
`api/http`, `api/dependencies` and `models`.
"""
