"""What all pictures of emotions share: the colours of the eight, and the letters."""


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
