"""The miniature: the whole method in the smallest sizes that show it, trained on drawn people alone."""
