"""Other uploaded inputs of jobs, such as initial weights.

Belongs here: what is specific to such files. Does not: what all uploads share (`api/uploads`). May import `api/uploads`,
`api/http`, `api/dependencies` and `models`.
"""
