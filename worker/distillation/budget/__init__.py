"""Students within a budget of bytes and milliseconds: the size and the time of a file do not depend on the training, so they are
measured before it, on networks with random weights.

Belongs here: what is tried, how it is measured, which one is taken, and the measurement of the finished student. Does not: the
transforms themselves (`transforms/`), writing files (`export/`). May import `compression/`, `export/`, `trainer/` and the interfaces.
"""
