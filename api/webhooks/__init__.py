"""Webhooks over HTTP: the signing secret of a key, and the deliveries of a job.

Belongs here: routes of `/v1/webhooks` and of a job's deliveries. Does not: sending (`worker/webhooks`). May import
`api/jobs`, `api/http`, `api/dependencies` and `models`.
"""
