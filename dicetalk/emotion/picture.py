"""Small pictures of an emotion: how much of each of the eight is in it, at once or over time."""

import numpy as np

from .drawing import COLOURS, EMPTY, FAINT, INK, PAPER, label_font
from .options import NAMES

_OTHER = (150, 165, 190)
_SIZE, _PAD, _ROW = 15, 14, 25
_BAR, _PLOT = 260, (400, 190)
_LONGEST_LABEL = 26
_SAMPLES = 200
_MOST_ROWS = 16


def weights_of_eight(means, priors):
    """How much of each of the eight is in emotions, from their means alone.

    A mean is written as neutral plus each other emotion's own difference from neutral times a weight of 0 or more,
    as nearly as least squares can. So 1 is the emotion as published, 1.3 is that emotion at the intensity 1.3, and a
    mix has its parts' weights. What is left to 1 is neutral.

    Args:
        means: (N, 256).
        priors: name → Emotion, with "neutral"; those of the eight that it lacks get no weight.

    Returns:
        (N, 8) float64 weights in the order of NAMES, and (N,) the share from 0 to 1 of each difference from neutral
        that the eight do not explain; 0 for neutral itself.
    """
    from scipy.optimize import nnls

    neutral = priors["neutral"].mean.double().numpy()
    names = [name for name in NAMES if name in priors and name != "neutral"]
    basis = np.stack([priors[name].mean.double().numpy() - neutral for name in names], axis=1)
    weights, rest = np.zeros((len(means), len(NAMES))), np.zeros(len(means))
    for row, mean in enumerate(np.asarray(means, np.float64) - neutral):
        found, missed = nnls(basis, mean)
        weights[row, [NAMES.index(name) for name in names]] = found
        rest[row] = missed / max(np.linalg.norm(mean), 1e-6 * np.linalg.norm(neutral))
    weights[:, NAMES.index("neutral")] = (1 - weights.sum(1)).clip(min=0)
    return weights, rest


def emotion_picture(emotion, priors, title=""):
    """One bar for each of the eight, as a PIL image about 450 pixels wide.

    Args:
        emotion: an Emotion or TokenMix.
        priors: see `weights_of_eight`.
        title: what the emotion is called.
    """
    weights, rest = weights_of_eight(emotion.mean[None], priors)
    return bars(list(COLOURS), [weights[0, NAMES.index(name)] for name in COLOURS], title, _note(rest[0]))


def timeline_picture(timeline, priors, title=""):
    """The eight as stacked areas over time, as a PIL image about 600 pixels wide; dashed lines are the keys."""
    from PIL import Image, ImageDraw

    first, last = timeline.keys[0].time, timeline.keys[-1].time
    end = last + max(0.15 * last, 0.5)
    moments = (np.arange(_SAMPLES) + 0.5) * end / _SAMPLES
    # Outside the keys nothing changes, and so nothing is computed again.
    means = np.stack([timeline.at(moment).mean.numpy() for moment in moments.clip(first, last)])
    weights, rest = weights_of_eight(means, priors)
    names = list(COLOURS)[::-1]  # neutral at the bottom
    stacked = weights[:, [NAMES.index(name) for name in names]].cumsum(1)
    most = max(1.0, float(stacked[:, -1].max()))
    shown = [name for name in names[::-1] if weights[:, NAMES.index(name)].max() > 0.005]

    font, small = label_font(_SIZE, True), label_font(_SIZE - 2, True)
    width, height = _PLOT
    left, top = _PAD + 34, _PAD + (_SIZE + 10 if title else 0)
    bottom = top + height
    image = Image.new("RGB", (left + width + 120, bottom + 44), PAPER)
    draw = ImageDraw.Draw(image)
    heights = most * (1 - (np.arange(height) + 0.5) / height)
    columns = (np.arange(width) * _SAMPLES // width).clip(max=_SAMPLES - 1)
    band = (heights[:, None, None] > stacked[columns][None]).sum(2)
    colours = np.array([*(COLOURS[name] for name in names), PAPER], np.uint8)
    image.paste(Image.fromarray(colours[band]), (left, top))
    draw.rectangle((left - 1, top - 1, left + width, bottom), outline=FAINT)
    draw.text((_PAD, _PAD), _shortened(title, 70), INK, label_font(_SIZE, title.isascii()))
    for value in (0, 1) if most < 1.5 else (0, 1, 2):
        if value <= most:
            draw.text((left - 6, bottom - height * value / most), str(value), FAINT, small, anchor="rm")
    free = left - 1.0  # where the next time fits
    for key in timeline.keys:
        x = left + (width - 1) * key.time / end
        for y in range(top, bottom, 4):  # light and dark in turn: one of them is seen on any colour
            draw.line((x, y, x, y + 3), fill=PAPER if (y - top) % 8 else INK)
        text = f"{key.time:g} s"
        if x - font.getlength(text) / 2 > free or key is timeline.keys[0]:
            draw.text((max(x, left + 8), bottom + 5), text, INK, small, anchor="mt")
            free = x + font.getlength(text) / 2 + 4
    for row, name in enumerate(shown):
        y = top + 22 * row
        draw.rectangle((left + width + 14, y, left + width + 28, y + 12), fill=COLOURS[name], outline=FAINT)
        draw.text((left + width + 36, y + 6), name, INK, small, anchor="lm")
    draw.text((left, bottom + 24), _note(rest.max()), FAINT, small)
    return image


def mix_picture(labels, weights, title=""):
    """One bar for each part of a mix, by its share; as a PIL image. `weights` are relative."""
    shares = np.asarray(weights, float) / max(weights)
    shares /= shares.sum()
    shown = np.argsort(-shares, kind="stable")[:_MOST_ROWS]
    note = f"and {len(shares) - len(shown)} more" if len(shown) < len(shares) else ""
    return bars([labels[number] for number in shown], shares[shown], title, note, percent=True)


def bars(labels, values, title="", note="", percent=False):
    """A row with a bar for each label, as a PIL image; the bars' full length is 1, or the largest value above it."""
    from PIL import Image, ImageDraw

    labels = [_shortened(label, _LONGEST_LABEL) for label in labels]
    plain = all(text.isascii() for text in (title, *labels))
    font, small = label_font(_SIZE, plain), label_font(_SIZE - 2, True)
    left = _PAD + int(max(font.getlength(label) for label in labels)) + 10
    top = _PAD + (_SIZE + 10 if title else 0)
    bottom = top + _ROW * len(labels)
    full = max(1.0, *values)
    width = max(left + _BAR + 56, int(_PAD * 2 + font.getlength(_shortened(title, 60))))
    image = Image.new("RGB", (width, bottom + (_SIZE + 8 if note else 0) + _PAD - 4), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_PAD, _PAD - 2), _shortened(title, 60), INK, font)
    for row, (label, value) in enumerate(zip(labels, values, strict=True)):
        y = top + _ROW * row
        draw.text((left - 10, y + _ROW / 2), label, INK, font, anchor="rm")
        draw.rectangle((left, y + 4, left + _BAR, y + _ROW - 5), fill=EMPTY)
        if value > 0.005:
            end = left + max(2, round(_BAR * value / full))
            colour = COLOURS.get(label.split(":")[0], _OTHER)
            draw.rectangle((left, y + 4, end, y + _ROW - 5), fill=colour, outline=FAINT)
            text = f"{value:.0%}" if percent else f"{value:.2f}"
            draw.text((left + _BAR + 8, y + _ROW / 2), text, INK, small, anchor="lm")
    if full > 1.01:
        x = left + _BAR / full
        draw.line((x, top, x, bottom - 1), fill=FAINT)
    draw.text((_PAD, bottom + 4), note, FAINT, small)
    return image


def _note(rest):
    return f"{rest:.0%} of it is outside the eight" if rest >= 0.01 else ""


def _shortened(text, most):
    return text if len(text) <= most else text[: most - 3] + "..."
