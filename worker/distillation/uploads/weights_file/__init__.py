"""Readers of weight file formats, which find the stored tensors without running any code in the file.

Belongs here: code that reads the bytes of a container (zip, pickle, safetensors, npz, archives around them). Does not:
the selection of a network's tensors (`uploads/`). May import `errors.py` and `limits.py`.
docs/decisions/reading-weights.md explains the design.
"""
