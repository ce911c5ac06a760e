"""Objectives that compare intermediate results of the networks: feature maps, attention, gradients.

Belongs here: one file each. Does not: relations between samples (`relations/`). May import what `objectives/` may.
"""
