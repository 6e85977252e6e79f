"""Sampling: windows, guidance, the loop, memory, decoding, and resuming an interrupted run."""
