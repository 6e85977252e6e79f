"""A picture of what was read from a clip: the weights of the eight emotions over time, one row for each cue."""

import math

import numpy as np

from ..emotion.drawing import COLOURS, EMPTY, FAINT, INK, PAPER, label_font
from ..emotion.options import FPS, NAMES

_SIZE, _PAD = 15, 16
_PLOT, _ROW, _GAP = 720, 130, 34
_LONGEST_NAME = 48
GUESS = 0.1
"""Below this sureness what was read is called a guess, and drawn pale."""


def chart(reading, name="clip"):
    """A Reading as a PIL image, about 1,000 pixels wide.

    Each row stacks the weights of one cue over time, from neutral at the bottom; where a cue says nothing it is blank.
    The legend gives each emotion's weight for the whole clip, by all cues together, the strongest first.

    Args:
        reading: the Reading.
        name: what the clip is called, for the title.
    """
    times = np.asarray(reading.times)
    end = float(times[-1] + (times[-1] - times[-2]) / 2) if len(times) > 1 else 2 * float(times[0])
    rows = {
        cue: (track, _how_sure(sure := reading.sureness[cue]), sure < GUESS) for cue, track in reading.tracks.items()
    }
    notes = [f"overall: {_how_sure(reading.sureness['combined'])}", "blank: nothing to read"]
    return _picture(
        "Emotion read from ", name, rows, times, end, "whole clip, combined", reading.weights["combined"], notes
    )


def meter_chart(read, asked, name="video"):
    """What the network itself reads in a video that it made, over time, below what was asked, as a PIL image.

    Args:
        read, asked: (N, 8) shares as NAMES, a row for each frame at 12.5 frames a second. Frames of `read` that are
            NaN are left blank, and do not count; not all may be.
        name: what the video is called, for the title.
    """
    known = ~np.isnan(read).any(1)
    times = (np.arange(len(read)) + 0.5) / FPS
    rows = {"asked": (asked, "", False), "read": (read, "", False)}
    common = float(np.minimum(read[known], asked[known]).sum(1).mean())
    notes = [f"{common:.0%} as asked"]
    return _picture(
        "Emotion that the network reads in ", name, rows, times, len(read) / FPS, "read", read[known].mean(0), notes
    )


def _picture(title, name, rows, times, end, heading, weights, notes):
    """Stacked areas over time, one row for each of `rows`, label → (track, what is below the label, whether pale)."""
    from PIL import Image, ImageDraw

    name = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."
    plain = name.isascii()
    font, small, large = (label_font(size, True) for size in (_SIZE, _SIZE - 2, _SIZE + 3))
    left, top = _PAD + int(max(font.getlength(label) for label in rows)) + 60, _PAD + 48
    right = left + _PLOT
    bottom = top + len(rows) * (_ROW + _GAP) - _GAP
    image = Image.new("RGB", (right + 210, max(bottom + 44, top + 9 * 24 + 76)), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_PAD, _PAD), title + name, INK, label_font(_SIZE + 3, plain) if not plain else large)
    for number, (label, (track, below, pale)) in enumerate(rows.items()):
        y = top + number * (_ROW + _GAP)
        image.paste(_faded(_areas(track, times, end), pale), (left, y))
        draw.rectangle((left - 1, y - 1, right, y + _ROW), outline=FAINT)
        draw.text((left - 40, y + _ROW / 2 - 9), label, INK, font, anchor="rm")
        draw.text((left - 40, y + _ROW / 2 + 9), below, FAINT, small, anchor="rm")
        for share in (0, 0.5, 1):
            draw.text((left - 6, y + _ROW * (1 - share)), f"{share:.0%}", FAINT, small, anchor="rm")
        _draw_times(draw, left, y + _ROW, end, small, number == len(rows) - 1)
    _draw_legend(draw, right + 24, top, heading, weights, notes, font, small)
    return image


def _areas(track, times, end):
    """The stacked areas of (steps, 8) weights; each column of pixels shows the step that is nearest in time."""
    from PIL import Image

    seconds = (np.arange(_PLOT) + 0.5) * end / _PLOT
    shares = track[np.searchsorted((times[1:] + times[:-1]) / 2, seconds)][:, [NAMES.index(name) for name in COLOURS]]
    shares = shares[:, ::-1].cumsum(1)  # neutral first, at the bottom
    colours = np.array(list(COLOURS.values()), dtype=np.uint8)[::-1]
    heights = 1 - (np.arange(_ROW) + 0.5) / _ROW
    band = (heights[:, None, None] > shares[None]).sum(2).clip(max=len(NAMES) - 1)
    picture = colours[band]
    picture[:, np.isnan(shares[:, 0])] = EMPTY
    return Image.fromarray(picture)


def _how_sure(sureness):
    return f"{sureness:.0%} sure" if sureness >= GUESS else f"a guess ({sureness:.0%})"


def _faded(areas, pale):
    """A guess is drawn pale, so that it does not look like something that was read."""
    from PIL import Image

    return Image.blend(areas, Image.new("RGB", areas.size, PAPER), 0.65) if pale else areas


def _draw_times(draw, left, bottom, end, font, numbers):
    every = _tick(end)
    for count in range(int(end / every + 1e-6) + 1):
        x = left + _PLOT * count * every / end
        draw.line((x, bottom, x, bottom + 5), fill=FAINT)
        if numbers:
            draw.text((x, bottom + 8), _clock(count * every, end), FAINT, font, anchor="mt")


def _tick(end, most=8):
    """A round number of seconds that divides a clip into no more than so many parts."""
    for seconds in (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600):
        if end / seconds <= most:
            return seconds
    return 3600 * math.ceil(end / 3600 / most)


def _clock(seconds, end):
    if end <= 120:
        return f"{seconds:g} s"
    hours, minutes = divmod(round(seconds), 3600)
    minutes, seconds = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if end >= 3600 else f"{minutes}:{seconds:02d}"


def _draw_legend(draw, x, y, heading, weights, notes, font, small):
    draw.text((x, y - 4), heading, FAINT, small)
    for row, column in enumerate(np.argsort(-weights, kind="stable")):
        top = y + 22 + 24 * row
        draw.rectangle((x, top, x + 16, top + 14), fill=COLOURS[NAMES[column]], outline=FAINT)
        draw.text((x + 24, top + 7), NAMES[column], INK, font, anchor="lm")
        draw.text((x + 160, top + 7), f"{weights[column]:.0%}", INK, font, anchor="rm")
    for row, note in enumerate(notes):
        faint = row > 0
        place = (x, y + 30 + 24 * (len(NAMES) + row))
        draw.text(place, note, FAINT if faint else INK, small if faint else font, anchor="lt")
