"""Transforms, one file each: how a network's weights are stored. The file's name is the transform's.

Belongs here: a class that changes a network in place and converts it to plain weights at the end. Does not: exports
(`export/`). May import the interface; never another transform.
"""
