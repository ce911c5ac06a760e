"""Reads a dataset from an upload: its container, its layout of splits and classes, its images and labels.

Belongs here: formats that users send, and what is changed to make them one `Packed`. Does not: the canonical form
(`data/packed.py`), the images of a job (`data/images.py`). May import `data`, `errors.py` and `limits.py`.
"""
