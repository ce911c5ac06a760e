"""The worker: a Celery process that claims jobs and inspections, and runs an engine for each.

Belongs here: everything between a row and an engine's process. Does not: training (`worker/distillation`), HTTP
(`api`). May import `models`; never torch, and never `api`.
"""
