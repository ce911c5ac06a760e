"""Files that users sent: read, checked, described, and written in the canonical form. Nothing in an uploaded file is ever
run.

Belongs here: everything that reads the bytes of an upload that is not a dataset. Does not: datasets (`data/`), anything
that a job does later. The containers of weights are in `weights_file/`. May import `data/`, `networks/`, `introspection/`, `limits.py` and `contract.py`.
"""
