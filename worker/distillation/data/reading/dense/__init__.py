"""Reads datasets with a value for each pixel: masks of classes, and depth.

Belongs here: the pairing of images with their masks or depth files, and what the pixels of those mean. Does not: boxes. May import
the rest of `data`, `errors.py` and `limits.py`.
"""
