"""Pretrained weights of torchvision and timm, which the operator of a service puts into a folder.

Belongs here: the official names of the files (`files.json`, from the engine's `networks/pretrained_index.py`), and finding them.
Does not: reading them, which the engine does. May import nothing of `models`.
"""
