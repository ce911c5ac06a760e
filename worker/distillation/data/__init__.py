"""Datasets: the formats that users send, images in memory, augmentations and samplers.

Belongs here: reading, decoding, resizing and drawing images with their labels. Does not: batches as the trainer sees
them (`sources/`), metrics (`tasks/`). May import `contract.py`, `errors.py`, `limits.py` and `parameters.py`.
"""
