"""How a stage's frozen teacher gives its logits: folded, in another precision, as a CUDA graph, or once for every image.

Belongs here: ways to get the same logits for less. Does not: the teacher's weights (`trainer/lineage.py`), its activations
(`introspection/`), what is learnt from it (`objectives/`). May import the interfaces, `data/`, `distributed/`,
`introspection/`, `precision.py`, `process/` and `training.py`.
"""
