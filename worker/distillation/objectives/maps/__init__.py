"""Objectives on maps: a class or a depth for each pixel.

Belongs here: losses of the tasks `segmentation` and `depth`. Does not: shared maths (`losses/maps.py`). May import what the
other folders of objectives may.
"""
