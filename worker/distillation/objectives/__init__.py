"""Objectives, one file each, in a folder for what they compare. The file's name is the objective's.

Belongs here: a class with its paper, its needs, its parameters and its formula. Does not: maths that a second objective
needs (`losses/`). May import the interfaces, `losses/`, `introspection/`, `networks/` and `precision.py`; never another
objective.
"""
