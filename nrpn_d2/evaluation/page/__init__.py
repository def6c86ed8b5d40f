"""Runs as pages for people: index.html in a run's folder, and several runs side by side.

folder.py    what a run has written: config, versions, scalars, results, pictures
series.py    its curves, of one run or of groups of seeds
tables.py    its tables, with differences between runs
mistakes.py  images with the boxes that are wrong or missing
words.py     the first screen: how good, where it fails, which threshold to use
pages.py     all of this on a page
"""
