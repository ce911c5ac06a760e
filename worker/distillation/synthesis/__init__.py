"""What synthesisers share: generators, losses on them, the image pool, and the watch for their failures.

Belongs here: what two or more files of `sources/` need. Does not: the sources themselves (`sources/`). May import the
interfaces, `introspection/`, `precision.py` and `randomness.py`.
"""
