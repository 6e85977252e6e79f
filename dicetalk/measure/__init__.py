"""Measuring: golden vectors, time and memory, the borders between decoded chunks."""
