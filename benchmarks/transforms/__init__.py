"""Transforms: accuracy, bytes and latency of quantised, pruned, factorised and int8 students.

Belongs here: the figures of docs/transforms.md. Does not: tests. May import everything.
"""
