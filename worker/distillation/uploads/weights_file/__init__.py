"""Containers that hold weights: what each one stores, found without running anything that is in it.

Belongs here: everything that knows the bytes of a container (zip, pickle, safetensors, npz, archives around them). Does not:
which of the tensors are a network's (`uploads/`). May import `errors.py` and `limits.py`.
docs/decisions/reading-weights.md says why it is built so.
"""
