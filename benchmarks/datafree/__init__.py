"""Distillation without data: `python -m benchmarks.datafree` and related scripts, behind docs/datafree.md.

Belongs here: comparisons of sources, their cost and their robustness. Does not: methods that use data
(`benchmarks/compare`). May import everything.
"""
