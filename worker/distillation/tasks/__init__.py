"""Tasks, one file each: what networks are for, what they learn from, and by which metrics they are measured.

Belongs here: a class with its ground truth and its metrics, and the computation of metrics. Does not: losses
(`objectives/`). May import the interface, `data/`, `losses/` and `process/`.
"""
