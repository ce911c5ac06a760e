"""The cache of datasets that all workers of a machine share, and from which engines read in place.

Belongs here: fetching, verifying, holding and removing files of canonical datasets. Does not: what an attempt needs
(`worker/attempt`). May import `worker/engine`, `worker/clock` and `models`.
"""
