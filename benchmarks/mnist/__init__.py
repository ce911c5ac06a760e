"""MNIST: the data and teachers that other benchmarks use, and jobs through the API and with the bare engine.

Belongs here: accuracies reported in docs/measured.md. Does not: comparisons of methods (`benchmarks/compare`).
May import everything.
"""
