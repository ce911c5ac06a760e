"""Inspecting arbitrary networks: taps, train and eval modes, gradients, BatchNorm layers, and groups of tied channels.

Belongs here: anything that inspects an `nn.Module` by its structure or by one forward pass. Does not: changing its
weights (`initial_weights/`), building it (`networks/`). May import `errors.py`, `parameters.py` and `step.py`.
"""
