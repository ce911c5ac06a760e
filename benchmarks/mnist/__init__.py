"""MNIST: the data and teachers that other benchmarks use, and jobs through the API and by the bare engine.

Belongs here: figures of docs/measured.md that are accuracies. Does not: comparisons of methods (`benchmarks/compare`).
May import everything.
"""
