"""One job on several devices: its processes, what they tell each other, and which of them has which samples.

Belongs here: ranks, the division of a batch, BatchNorm over all samples. Does not: what a rank computes (`trainer/`).
May import `errors.py` and `process/`.
"""
