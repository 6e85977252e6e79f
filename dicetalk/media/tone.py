"""High dynamic range to standard: pictures of PQ and HLG as a standard display shows them.

The formulas are those of Recommendations ITU-R BT.2100-2 (PQ and HLG: tables 4 and 5), BT.2390-11 (section 5.4.1, the
knee that maps a high peak down to a lower one) and BT.2087-0 (BT.709 within BT.2020); reference white at 203 cd/m² is
BT.2408-7's.
"""

import functools

import numpy as np

PQ, HLG = 16, 18  # ITU-T H.273's numbers of the transfer characteristics
TRANSFERS = (PQ, HLG)

_WHITE = 203.0  # cd/m² that become the standard picture's white
_PEAK = 1000.0  # cd/m², of the display that the picture was made for
_HLG_GAMMA = 1.2  # of a display of that peak
_GAMMA = 2.4  # BT.1886
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020's primaries
_TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
_ROWS = 256  # at a time, so that a large picture needs little memory

_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def to_standard_range(pixels, transfer):
    """(height, width, 3) uint16 RGB of BT.2020's primaries → uint8 of BT.709's.

    Args:
        pixels: code values, 0 to 65535.
        transfer: `PQ` or `HLG`.
    """
    result = np.empty(pixels.shape, np.uint8)
    for start in range(0, len(pixels), _ROWS):
        light = _displayed(pixels[start : start + _ROWS], transfer)
        luminance = light @ _LUMINANCE
        light *= (_lowered(luminance) / np.maximum(luminance, 1e-6))[..., None] / _WHITE
        standard = np.clip(light @ _TO_709.T, 0, 1)
        result[start : start + _ROWS] = np.rint(255 * standard ** np.float32(1 / _GAMMA))
    return result


def _displayed(pixels, transfer):
    """The light that the display for which it was made gives, in cd/m²: float32."""
    if transfer == PQ:
        return _table(PQ)[pixels]
    scene = _table(HLG)[pixels]
    luminance = scene @ _LUMINANCE
    return _PEAK * scene * (np.maximum(luminance, 1e-6) ** np.float32(_HLG_GAMMA - 1))[..., None]


@functools.cache
def _table(transfer):
    """(65536,) float32: a code value's light; of PQ in cd/m² of the display, of HLG 0 to 1 of the scene."""
    signal = np.arange(65536) / 65535
    if transfer == PQ:
        return _from_pq(signal).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)


def _from_pq(signal):
    power = signal ** (1 / _M2)
    return 10000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def _to_pq(light):
    power = (np.maximum(light, 0) / 10000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def _lowered(luminance):
    """cd/m² of a display of `_PEAK` → of one whose peak is `_WHITE`: what is darker than the knee stays as it is."""
    return np.interp(luminance, *_knee()).astype(np.float32)


@functools.cache
def _knee():
    """The curve as points: cd/m² in, cd/m² out."""
    light = np.concatenate([[0.0], np.geomspace(1e-3, 10000, 2000)])
    peak = _to_pq(_PEAK)
    signal, top = np.minimum(_to_pq(light) / peak, 1), _to_pq(_WHITE) / peak
    start = 1.5 * top - 0.5
    t = np.clip((signal - start) / (1 - start), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * start + (t**3 - 2 * t**2 + t) * (1 - start) + (-2 * t**3 + 3 * t**2) * top
    return light, _from_pq(np.where(signal < start, signal, spline) * peak)
