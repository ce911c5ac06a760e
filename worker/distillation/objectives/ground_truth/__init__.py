"""Objectives that learn from the dataset alone.

Belongs here: one file each. Does not: objectives that read a teacher. May import what `objectives/` may.
"""
