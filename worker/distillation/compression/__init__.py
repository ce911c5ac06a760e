"""What transforms share: which layers have weights, parametrised weights, codes and tables, activations in 8 bits; and the transforms
of one network in training.

Belongs here: maths and modules that several transforms, exports or reports need. Does not: a transform (`transforms/`), files
(`export/`), the training loop (`trainer/`). May import `introspection/`, `transform.py`, `transformed_network.py` and `errors.py`.
"""
