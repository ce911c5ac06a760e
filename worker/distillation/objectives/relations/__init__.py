"""Objectives that compare how samples relate to each other.

Belongs here: one file each. Does not: losses that are a mean over samples. May import what `objectives/` may.
"""
