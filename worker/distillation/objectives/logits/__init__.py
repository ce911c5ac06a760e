"""Objectives that compare the networks' outputs: logits, and probabilities computed from them.

Belongs here: one file each. Does not: objectives that read activations (`features/`). May import what `objectives/`
may.
"""
