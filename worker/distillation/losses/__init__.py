"""Maths that several objectives share.

Belongs here: pure functions on tensors, and base classes of objectives that read features or embeddings, once a second
objective needs them. Does not: the objectives themselves (`objectives/`). May import the interfaces, `precision.py` and
`introspection/`; never a method.
"""
