"""What teachers, datasets and files have in common: announced, sent by PUT, inspected.

Belongs here: the shared routes and service. Does not: what one of the three has of its own (`api/teachers`,
`api/datasets`, `api/files`). May import `api/http`, `api/access`, `api/health` and `models`.
"""
