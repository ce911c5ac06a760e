"""Webhooks over HTTP: the secret that signs them, and what was delivered.

Belongs here: routes of `/v1/webhooks` and of a job's deliveries. Does not: sending (`worker/webhooks`). May import
`api/jobs`, `api/http`, `api/dependencies` and `models`.
"""
