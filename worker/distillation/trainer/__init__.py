"""Running a job's stages: the training loop, the parts of a stage, and checkpoints.

Belongs here: code that runs between two optimiser steps, at the end of a stage, and on resume. Does not: the choice of
stages (`procedures/`, `planning/`), the origin of batches (`sources/`), the files written at the end (`reporting/`,
`export/`). May import everything of the engine except `reporting/`, `run.py` and `check.py`.
"""
