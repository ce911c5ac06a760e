"""Networks for images of about 32x32 pixels with the state dict keys of widely used public code.

Belongs here: one family a file, like the files beside this folder. Does not: what libraries have (`torchvision_networks.py`,
`timm_networks.py`). May import what `networks/` may.
"""
