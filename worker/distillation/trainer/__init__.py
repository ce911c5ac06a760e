"""Running a job's stages: the training loop, what a stage is made of, and its checkpoints.

Belongs here: what happens between two optimiser steps, at the end of a stage, and at a resume. Does not: which stages
there are (`procedures/`, `planning/`), where batches come from (`sources/`), what is written at the end (`reporting/`,
`export/`). May import everything of the engine but `reporting/`, `run.py` and `check.py`.
"""
