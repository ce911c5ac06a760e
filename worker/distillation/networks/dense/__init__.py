"""Networks that return a map of outputs for each image (B, K, H, W): for segmentation and depth.

Belongs here: encoders, feature pyramids and heads for maps, and those of libraries. Does not: detectors. May import what `networks`
may.
"""
