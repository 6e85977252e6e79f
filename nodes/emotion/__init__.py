"""The nodes that make, change, show, save and load emotions."""
