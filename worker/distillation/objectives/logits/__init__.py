"""Objectives that compare what networks answer: logits, and what is made of them.

Belongs here: one file each. Does not: whatever reads activations (`features/`). May import what `objectives/` may.
"""
