"""Datasets of photographs: `python -m benchmarks.photographs`; docs/photographs.md has the results.

Belongs here: photographs made by code, and what reading, inspecting and training on them costs. Does not: accuracies. May import
everything.
"""
