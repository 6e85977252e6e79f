"""Pictures of numbers about emotions: how they use the Emotion Bank's codes, and how they correlate."""

import csv
import io

import numpy as np

from .drawing import INK, PAPER, contrast, label_font

_FONT_SIZE = 15
_PAD = 12
_BLUE, _GREY, _RED = (80, 165, 240), (62, 62, 62), (240, 105, 85)
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def correlation_image(matrix, labels, title=""):
    """A labelled heat map of correlations: (N, N) numbers from -1 (blue) over 0 (grey) to 1 (red), as a PIL image.

    Each cell shows its number; a dash means NaN.
    """
    return _heat_map(np.asarray(matrix, float), labels, labels, title, (-1.0, 0.0, 1.0), cell=(58, 42), numbers=True)


def usage_image(shares, labels, title=""):
    """A labelled heat map of code usage: (N, codes) shares, as a PIL image.

    Colours compare with even use, at which every code has 1 / codes: blue is less, grey as much, red more; the bar
    says how many times. Codes count from 0, and every eighth is labelled.
    """
    times = np.asarray(shares, float) * np.shape(shares)[1]
    columns = [str(code) if code % 8 == 0 else "" for code in range(times.shape[1])]
    reach = max(float(np.abs(times - 1).max()), 1e-3)
    limits = (max(1 - reach, 0.0), 1.0, 1 + reach)
    return _heat_map(times, labels, columns, title, limits, cell=(14, 26), numbers=False)


def numbers_text(shares, matrix, labels):
    """Usage and correlations as CSV: two tables with a line of titles each, and an empty line between them.

    Args:
        shares: (N, heads, codes) of `usage`; its table has for each emotion a row averaged over the heads, then one
            for each head.
        matrix: (N, N) of `correlation`; NaN is left empty.
        labels: N texts.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["usage", "head", *(f"code {code}" for code in range(shares.shape[2]))])
    for label, heads in zip(labels, shares, strict=True):
        lines.writerow([label, "average", *map(_number, heads.mean(0))])
        lines.writerows([label, head, *map(_number, row)] for head, row in enumerate(heads))
    lines.writerow([])
    lines.writerow(["correlation", *labels])
    lines.writerows([label, *map(_number, row)] for label, row in zip(labels, matrix, strict=True))
    return text.getvalue()


def _number(value):
    return "" if np.isnan(value) else f"{value:.6g}"


def _heat_map(values, rows, columns, title, limits, cell, numbers):
    from PIL import Image, ImageDraw

    rows, columns = [_shortened(label) for label in rows], [_shortened(label) for label in columns]
    plain = all(text.isascii() for text in (title, *rows, *columns))
    font, small = label_font(_FONT_SIZE, plain), label_font(_FONT_SIZE - 2, plain)
    width, height = cell
    upright = all(font.getlength(label) <= width - 4 for label in columns) or not numbers
    column_space = _FONT_SIZE + 6 if upright else int(max(font.getlength(label) for label in columns)) + 8
    left = _PAD + int(max(font.getlength(label) for label in rows)) + 8
    top = _PAD + (_FONT_SIZE + 12 if title else 0) + column_space
    right, bottom = left + width * len(columns), top + height * len(rows)
    bar = right + 18
    total_width = max(bar + 62, _PAD * 2 + int(font.getlength(title)))
    image = Image.new("RGB", (total_width, max(bottom, top + 60) + _PAD), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_PAD, _PAD), title, INK, font)
    for number, label in enumerate(columns):
        x = left + width * number + width / 2
        if upright:
            draw.text((x, top - 4), label, INK, font, anchor="ms")
        else:
            _paste_rotated(image, label, font, x, top - 5)
    for row, label in enumerate(rows):
        y = top + height * row
        draw.text((left - 8, y + height / 2), label, INK, font, anchor="rm")
        for column, value in enumerate(values[row]):
            x = left + width * column
            colour = _colour(value, limits)
            draw.rectangle((x, y, x + width - 2, y + height - 2), fill=colour)
            if numbers:
                text = "-" if np.isnan(value) else f"{value:.2f}"
                ink = max(_WHITE, _BLACK, key=lambda ink: contrast(ink, colour))
                draw.text((x + (width - 2) / 2, y + (height - 2) / 2), text, ink, small, anchor="mm")
    _draw_bar(draw, bar, top, max(bottom, top + 60) - 2, limits, small)
    return image


def _shortened(label, most=28):
    return label if len(label) <= most else label[: most - 3] + "..."


def _paste_rotated(image, label, font, x, bottom):
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (int(font.getlength(label)) + 4, _FONT_SIZE + 6), PAPER)
    ImageDraw.Draw(strip).text((2, (_FONT_SIZE + 6) / 2), label, INK, font, anchor="lm")
    strip = strip.rotate(90, expand=True)
    image.paste(strip, (int(x - strip.width / 2), int(bottom - strip.height)))


def _draw_bar(draw, x, top, bottom, limits, font):
    low, middle, high = limits
    for y in range(top, bottom + 1):
        value = high - (high - low) * (y - top) / (bottom - top)
        draw.line((x, y, x + 14, y), fill=_colour(value, limits))
    centre = top + (high - middle) / (high - low) * (bottom - top)
    labels = [(top, high, "lt"), (centre, middle, "lm"), (bottom, low, "lb")]
    for y, value, anchor in labels:
        draw.text((x + 19, y), f"{value:.3g}", INK, font, anchor=anchor)


def _colour(value, limits):
    """Blue, grey, red from below the limits' middle to above it, evenly on both sides; nothing for NaN."""
    if np.isnan(value):
        return PAPER
    low, middle, high = limits
    share = float(np.clip((value - middle) / max(high - middle, middle - low), -1, 1))
    end = _RED if share >= 0 else _BLUE
    return tuple(round(grey + abs(share) * (colour - grey)) for grey, colour in zip(_GREY, end, strict=True))
