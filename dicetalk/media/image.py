"""Reading a picture in any common format as upright 8-bit sRGB, and writing one."""

import io
import os
import warnings

import numpy as np

from ..errors import InputError, reason
from ..files import written_beside
from .container import check_is_file

_WHITE = (255, 255, 255)
_PART = 2**20  # pixels
# Not EPS, for which Pillow starts Ghostscript, a program that runs what the file says.
_FORMATS = "AVIF BMP DIB GIF HEIF ICO JPEG JPEG2000 MPO PCX PNG PPM SGI TGA TIFF WEBP".split()


def load_image(path):
    """Read an image as upright 8-bit sRGB.

    Turned as its EXIF orientation says; transparent parts put on white; 16-bit and float greyscale scaled to 8 bits;
    colours converted through the embedded profile if there is one (so CMYK and wide-gamut photographs keep their
    look). Of an animation the first frame is taken.

    Args:
        path: image file.

    Returns:
        PIL image of mode RGB.

    Raises:
        InputError: missing, damaged, too large to be a photograph, or not an image of a format that is taken.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = os.fspath(path)
    check_is_file(path, "image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.init()
            with Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN]) as image:
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path} has too many pixels ({reason(error)}): make it smaller, for instance 4000 pixels wide."
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image of a known format: save the portrait as PNG or JPEG.") from error
    except Exception as error:  # Pillow's decoders raise many kinds for damaged files
        raise InputError(
            f"{path} cannot be read as an image ({reason(error)}): save it again as PNG or JPEG."
        ) from error


def _to_rgb(image):
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        return _scale_to_8_bits(image).convert("RGB")
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        colours = _apply_profile(image.convert("RGB"), profile)
        flat = Image.new("RGB", image.size, _WHITE)
        flat.paste(colours, mask=alpha)
        return flat
    return _apply_profile(image, profile)


def _scale_to_8_bits(image):
    """Greyscale of more than 8 bits → mode L. A float image's largest value shows if it ends at 1, 255 or 65535.

    A part at a time, since as float64 a large photograph takes gigabytes.
    """
    from PIL import Image

    values = np.asarray(image)
    grey = np.empty(values.shape, np.uint8)
    parts = [slice(start, start + _PART) for start in range(0, values.size, _PART)]

    def finite(part):
        return np.nan_to_num(values.reshape(-1)[part].astype(np.float64), posinf=0.0, neginf=0.0)

    white = max(finite(part).max() for part in parts)
    if image.mode == "F":
        white = next((limit for limit in (1.0, 255.0, 65535.0) if white <= limit), white)
    else:
        white = max(65535.0, white)
    for part in parts:
        grey.reshape(-1)[part] = np.clip(np.rint(finite(part) * (255 / white)), 0, 255)
    return Image.fromarray(grey)


def _apply_profile(image, profile):
    """To sRGB through the embedded colour profile; by Pillow's plain rules where there is none that fits."""
    if profile and image.mode in ("RGB", "CMYK", "L"):
        from PIL import ImageCms

        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass
    return image.convert("RGB")


def save_png(image, path):
    """Write a PIL image as PNG; InputError where that cannot be done."""
    with written_beside(path) as part:
        image.save(part, format="PNG")
