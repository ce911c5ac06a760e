"""Request bodies, the catalogue that they are checked against, and the resolution of a spec.

Belongs here: pydantic models of jobs and uploads, their defaults, and checks that build no network. Does not: checks
that build networks (the engine's `check.py`). May import `models/records`, `models/addresses`, `models/settings` and
`models/status`.
"""
