"""Reading a picture in any common format as upright 8-bit sRGB, and writing one."""

import io
import os
import warnings

import numpy as np

from ..errors import InputError, reason
from ..files import write_errors, written_beside
from .container import check_is_file

_WHITE = (255, 255, 255)
_PART = 2**20  # pixels
# Not EPS, for which Pillow starts Ghostscript, a program that runs what the file says.
_FORMATS = "AVIF BMP DIB GIF ICO JPEG JPEG2000 MPO PCX PNG PPM SGI TGA TIFF WEBP".split()
_MOVING = ("AVIF", "GIF", "PNG", "WEBP")  # formats whose further pictures are an animation, not other pages
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_RAW_SUFFIXES = set(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .sr2 .srw "
    ".x3f".split()
)
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"IIU\0", b"MMOR", b"FOVb", b"\0MRM")
_SUBFILE_TYPE, _PHOTOMETRIC, _DNG_VERSION = 254, 262, 50706  # tags of a TIFF
_WHITE_IS_ZERO = 0
_USUAL_GAMMA = 1 / 2.2


def load_image(path):
    """Read an image as upright 8-bit sRGB.

    Turned as its EXIF orientation says; transparent parts put on white, unless all is transparent, where the colours
    are the picture; 16-bit and float greyscale scaled to 8 bits; colours converted through the embedded profile if
    there is one (so CMYK and wide-gamut photographs keep their look), else by the gamma that a PNG names. Of an
    animation the first frame is taken. HEIC is read by the package pillow-heif, and a camera's raw file is developed by
    rawpy, with the camera's white balance, where these are installed.

    Args:
        path: image file.

    Returns:
        PIL image of mode RGB.

    Raises:
        InputError: missing, damaged, too large to be a photograph, or not an image of a format that is taken; or a
            package that reads it is missing.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = os.fspath(path)
    check_is_file(path, "image")
    if is_heif(path):
        return _to_rgb(_heif(path))
    if is_raw(path):
        return _developed(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.init()
            with Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN]) as image:
                image.load()
                rgb = _to_rgb(ImageOps.exif_transpose(image))
                # Pillow turns a negative of 8 bits over by itself.
                negative = (
                    image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
                )
                return ImageOps.invert(rgb) if negative else rgb
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


def is_still(path):
    """Whether a file is a picture that `load_image` takes, and no animation, by its first bytes."""
    from PIL import Image

    path = os.fspath(path)
    if not os.path.isfile(path):
        return False
    if is_heif(path) or is_raw(path):
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.init()
            with Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN]) as image:
                return image.format not in _MOVING or getattr(image, "n_frames", 1) == 1
    except Exception:  # Pillow's decoders raise many kinds for what they cannot read
        return False


def is_heif(path):
    """Whether a file is a HEIC or HEIF picture."""
    start = _start(path)
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS and b"avif" not in start


def is_raw(path):
    """Whether a file is a camera's raw one, in which other readers see a small preview only."""
    start = _start(path)
    if start.startswith(_RAW_STARTS) or start[8:10] == b"CR" or start[4:12] == b"ftypcrx ":
        return True
    if start[:4] not in (b"II*\0", b"MM\0*"):
        return False
    if os.path.splitext(path)[1].lower() in _RAW_SUFFIXES:
        return True
    from PIL import Image

    try:
        with Image.open(path, formats=["TIFF"]) as image:
            return _DNG_VERSION in image.tag_v2 or bool(image.tag_v2.get(_SUBFILE_TYPE, 0) & 1)
    except Exception:  # Pillow's decoders raise many kinds for what they cannot read
        return False


def _start(path):
    with open(path, "rb") as file:
        return file.read(64)


def _heif(path):
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(
            f"{path} is a HEIC picture, which the package pillow-heif reads: `pip install pillow-heif`, or save the "
            "picture as JPEG."
        ) from error
    from PIL import ImageOps

    try:
        image = pillow_heif.open_heif(path).to_pillow()
        image.load()
        return ImageOps.exif_transpose(image)
    except Exception as error:  # its decoder raises many kinds for damaged files
        raise InputError(f"{path} cannot be read as an image ({reason(error)}): save it as PNG or JPEG.") from error


def _developed(path):
    try:
        import rawpy
    except ImportError as error:
        raise InputError(
            f"{path} is a camera's raw file, which the package rawpy reads: `pip install rawpy`, or export the picture "
            "as JPEG or PNG."
        ) from error
    from PIL import Image

    try:
        with rawpy.imread(path) as raw:
            return Image.fromarray(raw.postprocess(use_camera_wb=True))
    except Exception as error:  # LibRaw's errors are of many kinds
        raise InputError(
            f"{path} cannot be read as a camera's raw file ({reason(error)}): export the picture as JPEG or PNG."
        ) from error


def _to_rgb(image):
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        return _scale_to_8_bits(image).convert("RGB")
    info = image.info
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        alpha = whole.getchannel("A")
        colours = _in_srgb(image.convert("L") if image.mode == "LA" else whole.convert("RGB"), info)
        if alpha.getextrema()[1] == 0:  # a channel that some programs leave empty
            return colours
        flat = Image.new("RGB", image.size, _WHITE)
        flat.paste(colours, mask=alpha)
        return flat
    return _in_srgb(image.convert("RGB") if image.mode == "P" else image, info)


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


def _in_srgb(image, info):
    """To sRGB through the embedded colour profile, or by a PNG's gamma; by Pillow's plain rules where neither fits."""
    profile, gamma = info.get("icc_profile"), info.get("gamma")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        from PIL import ImageCms

        # Greyscale may have the profile of colours.
        for form in (image, image.convert("RGB")):
            try:
                source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
                return ImageCms.profileToProfile(form, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            except (ImageCms.PyCMSError, OSError):
                pass
    image = image.convert("RGB")
    if profile or "srgb" in info or not gamma or abs(gamma - _USUAL_GAMMA) < 0.02:
        return image
    table = [round(255 * (value / 255) ** (_USUAL_GAMMA / gamma)) for value in range(256)]
    return image.point(table * 3)


def save_png(image, path):
    """Write a PIL image as PNG; InputError where that cannot be done."""
    with written_beside(path) as part, write_errors(path):
        image.save(part, format="PNG")
