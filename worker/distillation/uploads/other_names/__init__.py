"""Weights of networks that timm and torchvision have, under the names that other code gives them.

Belongs here: what such names become, one file for each kind of code. Does not: names that only wrappers or heads change (`uploads/`).
May import `networks/` and what reads weights.
"""
