"""What is wrong with a dataset that could be read, and what it consists of.

image.py       one image: whether it can be decoded, its boxes, its perceptual hash
findings.py    what only all images together tell: near-duplicates, boxes too large for their class
inspection.py  whole datasets: all of this, the reader's faults, and statistics
report.py      the same as text and JSON
page.py        ... and as one HTML page with pictures
"""
