"""Initial weights of a student that are derived from the teacher's.

Belongs here: one file for each method. Does not: choosing the method (`models/spec/initial_weights.py`), loading uploaded
weights (`uploads/`). May import `introspection/`, `process/` and `errors.py`.
"""
