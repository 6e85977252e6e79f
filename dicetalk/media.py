"""Reading what a user brings: a portrait in any common format, speech in any that FFmpeg reads."""

import io
import math
import os
import warnings

import numpy as np

from .audio import SAMPLE_RATE, SAMPLES_PER_FRAME, check_rate, num_frames
from .emotion.options import LONGEST
from .errors import InputError
from .memory import free_memory, require_memory

_WHITE = (255, 255, 255)
_PART = 2**20  # pixels
_MINUTE = 60 * SAMPLE_RATE
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
    _check_is_file(path, "image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.init()
            with Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN]) as image:
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path} has too many pixels ({_one_line(error)}): make it smaller, for instance 4000 pixels wide."
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image of a known format: save the portrait as PNG or JPEG.") from error
    except Exception as error:  # Pillow's decoders raise many kinds for damaged files
        raise InputError(
            f"{path} cannot be read as an image ({_one_line(error)}): save it again as PNG or JPEG."
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
    """Greyscale of more than 8 bits → mode L. A float image's largest value tells if it ends at 1, 255 or 65535.

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


def load_audio(path, start=0.0, length=None):
    """Read an audio file, or the first audio track of a video, as speech for the model.

    Channels are averaged to mono, and the sound is resampled to 16 kHz with soxr's HQ setting while it is decoded, so
    that only the result is ever held. Damaged packets are left out, as players do, unless most of the file is damaged.

    Args:
        path: audio or video file.
        start: where to start, in seconds.
        length: how much to read, in seconds; to the end if None or longer than what there is.

    Returns:
        (samples,) float32 array, 16 kHz.

    Raises:
        InputError: missing or damaged file, no audio track, a start past the end, times or a sampling rate that make no
            sense, or more sound than memory holds.
    """
    import av

    from .video import open_media

    path = os.fspath(path)
    if not 0 <= start <= LONGEST:
        raise InputError(f"The audio's start is {start} s: give 0 to {LONGEST:g} seconds.")
    if length is not None and not 0 < length <= LONGEST:
        raise InputError(f"The audio's length is {length} s: give more than 0 and at most {LONGEST:g} seconds.")
    _check_is_file(path, "audio")
    try:
        container = open_media(path)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as audio or video ({_one_line(error)}): convert it, for instance to WAV or MP4."
        ) from error
    with container:
        if not container.streams.audio:
            raise InputError(f"{path} has no audio track: give a file that holds speech.")
        blocks = decode_mono(container, path)
        return _cut_and_resample(blocks, start, length, path)


def decode_mono(container, path):
    """Yields (rate, (samples,) float32 block) for every decoded piece of the container's first audio track.

    Raises:
        InputError: the track is damaged, or its sampling rate is none that sound has; names `path`.
    """
    import av

    stream = container.streams.audio[0]
    resampler = None
    decoded = damaged = 0
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                damaged += 1
                continue
            for frame in frames:
                check_rate(frame.sample_rate, path)
                if resampler is None:
                    resampler = SteadyResampler(frame.layout, frame.sample_rate)
                    rate = frame.sample_rate
                for block in resampler.resample(frame):
                    decoded += 1
                    yield rate, block.mean(axis=0, dtype=np.float32)
    except InputError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"The audio track of {path} is damaged ({_one_line(error)}): export it again.") from error
    if damaged > decoded:
        raise InputError(
            f"The audio track of {path} is damaged ({damaged} of its {damaged + decoded} packets cannot be decoded): "
            "export it again."
        )


class SteadyResampler:
    """Frames as float arrays of one layout and rate, also where these change within a file.

    PyAV's own resampler passes every frame on as it is once the first one fitted.
    """

    def __init__(self, layout, rate):
        self._target = {"format": "flt", "layout": layout, "rate": rate}
        self._source = self._resampler = None

    def resample(self, frame):
        """A list of (channels, samples) float32 arrays."""
        source = frame.format.name, frame.layout.name, frame.sample_rate
        if source != self._source:
            import av

            self._source, self._resampler = source, av.AudioResampler(**self._target)
        # Interleaved, as PyAV reads planes that are not there when a planar frame has 8 channels or more.
        blocks = self._resampler.resample(frame)
        return [block.to_ndarray().reshape(block.samples, -1).T for block in blocks]


def _cut_and_resample(blocks, start, length, path):
    import soxr

    stream = None
    seen = held = checked = 0
    pieces = []
    for rate, block in blocks:
        if stream is None:
            stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
            first = round(start * rate)
            end = math.inf if length is None else first + round(length * rate)
        wanted = block[max(0, first - seen) : max(0, min(len(block), end - seen))]
        seen += len(block)
        if len(wanted):
            pieces.append(stream.resample_chunk(np.ascontiguousarray(wanted)))
            held += len(pieces[-1])
        if held >= checked + _MINUTE:
            _require_memory(held, path)
            checked = held
        if seen >= end:
            break
    if stream is None:
        raise InputError(f"The audio track of {path} holds no sound that can be decoded: export it again.")
    if seen <= first:
        raise InputError(
            f"The audio's start, {start:g} s, lies past the end of {path}, which lasts {seen / rate:.2f} s: "
            "start earlier."
        )
    pieces.append(stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
    audio = np.concatenate(pieces)
    if length is not None:
        audio = audio[: max(1, round(length * SAMPLE_RATE))]
    if not np.isfinite(audio).all():
        raise InputError(f"The audio track of {path} holds samples that are not finite numbers: export it again.")
    return audio


def _require_memory(held, path):
    """InputError unless memory suffices for so many samples, and for the whole that they are joined to."""
    require_memory(
        f"{path}, as far as it was read,",
        num_frames(held),
        2 * 4 * SAMPLES_PER_FRAME,
        free_memory("cpu") + 4 * held,
        lambda seconds: f"give {seconds} s of it at most (--length {seconds})",
    )


def _check_is_file(path, what):
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder: name an {what} file.")
    if not os.path.exists(path):
        raise InputError(f"{path} does not exist: check the {what} file's name.")
    if os.path.getsize(path) == 0:
        raise InputError(f"{path} is empty: use another {what} file.")


def _one_line(error):
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
