"""One job on several devices: its processes, their communication, and the division of batches.

Belongs here: ranks, the division of a batch, BatchNorm over all samples. Does not: what a rank computes (`trainer/`).
May import `errors.py` and `process/`.
"""
