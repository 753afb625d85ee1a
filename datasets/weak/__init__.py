"""Weak labels: boxes, points, scribbles and presence of classes derived from masks, and labels expanded from scribbles.

Masks are those of `datasets.source.Source.masks`: ids (height, width), or (classes, height, width) of 0/1 if classes
overlap, `IGNORE` where pixels are not annotated, from which nothing is derived. Images are held in memory.
"""
