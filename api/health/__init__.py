"""Liveness, readiness and metrics for Prometheus.

Belongs here: `/health` and `/metrics`. Does not: metrics of a job (`api/jobs`). May import `api/http` and `models`.
"""
