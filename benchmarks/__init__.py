"""Scripts behind the measurements in the documentation.

Belongs here: one script per question, each a command of its own. Does not: tests; no script here decides whether the code
is correct. May import everything.
"""
