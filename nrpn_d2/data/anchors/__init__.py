"""Anchors and objects: which objects the anchors reach, and which anchors fit the objects.

seen.py      the objects of dataset dicts, at the scale at which the network sees them
reach.py     the best IoU of each object with the anchors on their grid
clusters.py  k-means of widths and heights with the distance 1 - IoU
fitting.py   anchors for several k, as the sizes x ratios that Detectron2 takes; which k to take
report.py    the same as text, as YAML to paste, and as a plot
"""
