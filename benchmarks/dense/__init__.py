"""Benchmarks of tasks whose labels have a place in the image: segmentation, depth and detection.

Belongs here: one script for each task, and what they share. Does not: tests. May import everything.
"""
