"""Datasets: the formats that users send, images in memory, augmentations and samplers.

Belongs here: reading, decoding, resizing and sampling images with their labels. Does not: the batches of training
(`sources/`), metrics (`tasks/`). May import `contract.py`, `errors.py`, `limits.py` and `parameters.py`.
"""
