"""Distillation without data: `python -m benchmarks.datafree` and its siblings, behind docs/datafree.md.

Belongs here: sources side by side, their cost and how robust they are. Does not: methods that use data
(`benchmarks/compare`). May import everything.
"""
