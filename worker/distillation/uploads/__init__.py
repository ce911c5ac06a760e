"""Inspection of uploads: read, check and describe a file, and write its canonical form. No code in a file is ever run.

Belongs here: code that reads the bytes of uploads other than datasets. Does not: datasets (`data/`), anything that a job
does later. Containers of weights are in `weights_file/`. May import `data/`, `networks/`, `introspection/`, `limits.py`
and `contract.py`.
"""
