"""Transforms, one file each: how a network's weights live. The file's name is the transform's.

Belongs here: a class that changes a network in place and bakes the change in at the end. Does not: exports (`export/`).
May import the interface; never another transform.
"""
