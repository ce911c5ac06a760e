"""Uploaded arrays: npz files, and what their arrays are by name, type and shape.

Belongs here: arrays of images and labels. Does not: image files (`data/reading/decoding.py`). May import the rest of
`data`, `errors.py` and `limits.py`.
"""
