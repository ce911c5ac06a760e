"""Datasets: the canonical form, images in memory, augmentations and samplers.

Belongs here: resizing, augmenting and sampling images with their labels. Does not: uploads (`reading`), batches of training
(`sources/`), metrics (`tasks/`). May import `contract.py`, `errors.py`, `limits.py` and `parameters.py`.
"""
