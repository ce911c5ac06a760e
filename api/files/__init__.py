"""Other inputs of jobs that users upload, such as initial weights.

Belongs here: what only such files have. Does not: what all uploads share (`api/uploads`). May import `api/uploads`,
`api/http`, `api/dependencies` and `models`.
"""
