"""What users ask for: the bodies of requests, the catalogue that they are checked against, and how a spec is resolved.

Belongs here: pydantic models of jobs and uploads, their defaults, and checks that need no network to be built. Does
not: checks that build networks (the engine's `check.py`). May import `models/records`, `models/addresses`,
`models/settings` and `models/status`.
"""
