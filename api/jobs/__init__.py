"""Distillation jobs: submission, status, events, metrics, previews and artifacts.

Belongs here: routes and services of `/v1/jobs`. Does not: how a spec is checked and resolved (`models/spec`). May
import `api/access`, `api/health`, `api/http`, `api/dependencies` and `models`.
"""
