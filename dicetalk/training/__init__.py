"""Training of the whole method: recordings become kept features, and the published parts learn from them.

What the authors did not publish is chosen here; docs/training.md says which is which.
"""
