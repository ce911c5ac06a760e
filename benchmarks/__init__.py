"""Scripts behind every figure in the documentation.

Belongs here: one script a question, each a command of its own. Does not: tests; nothing here decides whether the code
is right. May import everything.
"""
