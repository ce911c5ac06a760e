"""Experiments over HTTP: several jobs from one request, followed, cancelled and compared together.

Belongs here: the expansion of a grid or of variants into specs, and the statistics of the table. Does not: submitting one
job (`api/jobs`). May import `api/access`, `api/http`, `api/jobs`, `api/dependencies` and `models`.
"""
