"""Reads datasets of boxes: COCO JSON, Pascal VOC XML and YOLO text files, with their images in one archive.

Belongs here: one file for each format, and what they share: boxes as written, their repair, their images. Does not: masks and depth
(`dense/`). May import the rest of `data`, `errors.py` and `limits.py`.
"""
