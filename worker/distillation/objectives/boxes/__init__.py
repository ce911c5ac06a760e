"""Objectives on boxes: on what detectors return for their regions and anchors.

Belongs here: objectives of the task `detection`, one file each. Does not: maths that several of them share (`losses/boxes.py`).
"""
