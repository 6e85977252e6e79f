"""What all pictures of emotions share: their colours, and the letters.

They are dark, since ComfyUI's page is; on a light page they are dark cards, and read as well.
"""

PAPER, INK, FAINT = (30, 30, 30), (235, 235, 235), (170, 170, 170)
EMPTY = (52, 52, 52)
"""Where a bar could be, and is not, or a clip says nothing."""


def contrast(one, other):
    """How far two colours (red, green, blue of 0 to 255) differ in lightness, 1 to 21: WCAG 2.2, "contrast ratio"."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour):
    values = [part / 255 for part in colour]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def label_font(size, plain):
    """Pillow's own font, the same everywhere, where it has the letters; else the first known one of the system."""
    from PIL import ImageFont

    for name in () if plain else ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial Unicode.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


# Told apart also by those who do not see all colours: Okabe and Ito, "Color universal design", 2008, without its black.
COLOURS = {
    "happy": (240, 228, 66),
    "surprised": (230, 159, 0),
    "angry": (213, 94, 0),
    "disgusted": (0, 158, 115),
    "contempt": (204, 121, 167),
    "fear": (0, 114, 178),
    "sad": (86, 180, 233),
    "neutral": (205, 205, 205),
}
