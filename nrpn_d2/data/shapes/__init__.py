"""The embedded dataset: drawn shapes in a folder in VOC layout."""
