"""Every method under one protocol: `python -m benchmarks.compare`, which writes docs/comparison.md.

Belongs here: rows, protocols, and the page. Does not: single accuracies (`benchmarks/mnist`). May import everything.
"""
