"""Networks whose output is a map: an encoder with three resolutions, a feature pyramid, and heads.

Belongs here: encoders, pyramids and heads for segmentation and depth. Does not: heads that return boxes (`detectors/`).
May import what `networks/` may.
"""
