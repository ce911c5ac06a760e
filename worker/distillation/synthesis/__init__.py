"""What synthesisers share: generators, their losses, the image pool, and the detection of collapse.

Belongs here: code that two or more files of `sources/` need. Does not: the sources themselves (`sources/`). May import
the interfaces, `introspection/`, `precision.py`, `randomness.py`, `data/samplers.py` and `uploads/class_embeddings.py`.
"""
