"""Containers of an uploaded dataset: zip, tar, a folder of the server, and files of kinds that are not read.

Belongs here: untrusted containers, whose entries are checked before they are read. Does not: what the entries are
(`data/reading`). May import `errors.py` and `limits.py`.
"""
