"""Networks for images of about 32x32 pixels as in weiaicunzai/pytorch-cifar100: its state dict keys, and what it computes.

Belongs here: one family a file, where it differs in more than names from `cifar/`. Does not: networks whose layers are the same in
the same order, which are matched without their names. May import what `networks/` may.
"""
