"""Networks that find objects: they return boxes, with a class and a score each.

Belongs here: the protocol of detectors, detectors of two stages and of one, our small family, and torchvision's by name. Does
not: losses on boxes (`losses/boxes.py`), metrics (`tasks/`). May import what `networks/` may, `dense/` and `step.py`.
"""
