"""What a student's weights begin with, where they are made from the teacher's.

Belongs here: one file for each way. Does not: choosing the way (`models/spec/initial_weights.py`), loading uploaded
weights (`uploads/`). May import `introspection/`, `process/` and `errors.py`.
"""
