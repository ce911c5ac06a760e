"""Loss functions and base classes that several objectives share.

Belongs here: pure functions on tensors, and base classes of objectives on features or embeddings, as soon as a second
objective needs them. Does not: the objectives themselves (`objectives/`). May import the interfaces, `precision.py` and
`introspection/`; never a method.
"""
