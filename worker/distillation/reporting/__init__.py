"""What a run leaves for people: metrics of the student, previews, and the report.

Belongs here: whatever ends up in `report.json`, `student.json`, the model card or under `previews/`. Does not: the student's
own files (`export/`, `student_file/`). May import everything of the engine but `run.py` and `check.py`.
"""
