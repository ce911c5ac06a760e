"""Families of procedural images: drawn by a formula from random numbers, without data and without a network.

Belongs here: one file for each family, with a function that draws its images, and what families share. Does not: what is
done with the images (`synthesis/procedural_images.py`). May import `contract.py`.
"""
