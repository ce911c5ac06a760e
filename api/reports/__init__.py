"""`report.html`: one file about a job that has ended, to show and to keep.

Belongs here: what the file contains, also where the job's page shows the same, and its template. Does not: measuring (the engine
writes `report.json`). May import `api/http`, `api/jobs`, `api/dependencies` and `models`.
"""
