"""What teachers, datasets and files share: a record, then the bytes by PUT, then an inspection.

Belongs here: the shared routes and service. Does not: what is specific to one of the three (`api/teachers`,
`api/datasets`, `api/files`). May import `api/http`, `api/access`, `api/health` and `models`.
"""
