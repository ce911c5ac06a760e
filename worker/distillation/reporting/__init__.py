"""The results of a run for its users: metrics of the student, previews, and the report.

Belongs here: everything that is written to `report.json`, `student.json`, the model card or `previews/`. Does not: the
student's own files (`export/`, `student_file/`). May import everything of the engine except `run.py` and `check.py`.
"""
