"""Segmentation and depth on small real data: `python -m benchmarks.dense`, whose figures docs/dense.md has.

Belongs here: rows, data and tables. Does not: other tasks. May import everything.
"""
