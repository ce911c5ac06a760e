"""Reading networks that others wrote: taps, modes, gradients, BatchNorm layers, and which channels belong together.

Belongs here: anything that learns about an `nn.Module` by looking at it or running it once. Does not: changing its
weights (`initial_weights/`), building it (`networks/`). May import `errors.py`, `parameters.py` and `step.py`.
"""
