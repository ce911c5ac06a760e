"""Objectives that compare what networks compute on the way: feature maps, attention, gradients.

Belongs here: one file each. Does not: relations between samples (`relations/`). May import what `objectives/` may.
"""
