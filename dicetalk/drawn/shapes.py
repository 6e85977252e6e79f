"""Smooth shapes as complex numbers, x + iy, y down: adding moves them and multiplying turns and scales them."""

from functools import lru_cache

import numpy as np

_STEPS = 6  # points from one control point to the next


def closed(*controls):
    """A smooth closed outline through control points (Catmull and Rom's spline)."""
    return _closed_basis(len(controls)) @ np.array(controls)


def curve(*controls):
    """A smooth open line through control points, from the first to the last."""
    return _open_basis(len(controls)) @ np.array(controls)


def mirrored(*half):
    """A closed outline that is the same on both sides of x = 0, from its right half, top to bottom.

    Points at x = 0 are taken once.
    """
    other = [-point.conjugate() for point in reversed(half) if point.real]
    return closed(*half, *other)


def ellipse(centre, width, height, points=20):
    """Half width and half height; see `_circle`."""
    circle = _circle(points)
    return centre + width * circle.real + 1j * height * circle.imag


def stroke(line, width, taper=1.0):
    """The outline of a line with that half width in the middle; `taper` is the share that is gone at its ends."""
    tangent = np.gradient(line)
    across = 1j * tangent / np.maximum(np.abs(tangent), 1e-9)
    place = np.linspace(-1, 1, len(line))
    across = across * (width * (1 - taper * place**4))
    return np.concatenate([line + across, (line - across)[::-1]])


@lru_cache(maxsize=None)
def _circle(points):
    return np.exp(2j * np.pi * np.arange(points) / points)


def _weights():
    t = np.arange(_STEPS)[:, None] / _STEPS
    return np.concatenate(
        [-(t**3) + 2 * t**2 - t, 3 * t**3 - 5 * t**2 + 2, -3 * t**3 + 4 * t**2 + t, t**3 - t**2], axis=1
    ) * (0.5)


@lru_cache(maxsize=None)
def _closed_basis(count):
    basis = np.zeros((count * _STEPS, count))
    for piece in range(count):
        rows = slice(piece * _STEPS, (piece + 1) * _STEPS)
        for offset in range(4):
            basis[rows, (piece + offset - 1) % count] += _weights()[:, offset]
    return basis


@lru_cache(maxsize=None)
def _open_basis(count):
    basis = np.zeros(((count - 1) * _STEPS + 1, count))
    for piece in range(count - 1):
        rows = slice(piece * _STEPS, (piece + 1) * _STEPS)
        for offset in range(4):
            basis[rows, min(max(piece + offset - 1, 0), count - 1)] += _weights()[:, offset]
    basis[-1, -1] = 1
    return basis
