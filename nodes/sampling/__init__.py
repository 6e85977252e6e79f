"""The native MODEL, its guider, and the nodes that sample with it."""
