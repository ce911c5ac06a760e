"""Objectives that learn from the dataset alone.

Belongs here: one file each. Does not: whatever reads a teacher. May import what `objectives/` may.
"""
