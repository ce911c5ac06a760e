"""Distillation jobs: submission, status, events, metrics, previews and artifacts.

Belongs here: routes and services of `/v1/jobs`. Does not: checking and resolving a spec (`models/spec`). May
import `api/access`, `api/health`, `api/http`, `api/dependencies` and `models`.
"""
