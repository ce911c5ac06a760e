"""Transforms, one file each: how a network's weights are stored. The file's name is the transform's.

Belongs here: a class that changes a network in place and converts it to plain weights at the end. Does not: exports
(`export/`), maths that two transforms share (`compression/`). May import the interface and `compression/`; never another transform.
"""
