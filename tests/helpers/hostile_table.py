"""The table of hostile and broken input.

Each row: the input, how it is used, and either the message that refuses it or what comes out of it (both regular
expressions). `check` also sees to it that a refusal is one line that a person can read, that nothing else was raised,
and that no file appeared, changed or went anywhere near. `test_hostile_library.py` runs the rows of the library, and
`nodes/test_hostile.py` those of the nodes and of the server.
"""

import json
import os
import pickle
import re
import struct
import wave
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from emotions import make_priors
from safetensors.torch import save

from dicetalk.errors import InputError

LONGEST_MESSAGE = 1200


@dataclass(frozen=True)
class Row:
    """One input.

    Attributes:
        what: for people.
        make: makes the input in an empty folder (and knows the tiny checkpoint's); returns what is given to `use`.
        use: uses it; returns a line about what came out.
        refused: the message, where it is refused with an InputError.
        gives: that line, where it works.
        writes: names of files that it may write or remove, below the folder.
    """

    what: str
    make: Callable
    use: Callable
    refused: str = ""
    gives: str = ""
    writes: tuple = ()


def check(row, folder, tiny=None, error=ValueError):
    """Run a row in a folder of its own. `error` is what an InputError is in this process."""
    given = row.make(folder, tiny) if tiny else row.make(folder)
    before = files(folder)
    if row.refused:
        told = refusal(row.use, given, error)
        assert re.search(row.refused, told), told
    else:
        assert re.search(row.gives, line := str(row.use(given))), line
    after = files(folder)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == set(row.writes)


def refusal(use, given, error=InputError):
    """The message of the one kind of error that may come of bad input."""
    try:
        result = use(given)
    except error as raised:
        assert type(raised).__name__ == "InputError", repr(raised)
        told = str(raised)
        assert told and "\n" not in told and len(told) < LONGEST_MESSAGE
        return told
    raise AssertionError(f"it was accepted: {result}")


def files(folder):
    """What lies in and below a folder: name → kind, and size and time of files, or a link's target."""
    found = {}
    for path in Path(folder).rglob("*"):
        state = os.lstat(path)
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        elif path.is_file():
            found[str(path.relative_to(folder))] = state.st_size, state.st_mtime_ns
        else:
            found[str(path.relative_to(folder))] = "folder"
    return found


class Runs:
    """Pickles as a call that leaves a trace: a folder `ran` beside the file."""

    def __init__(self, folder):
        self.trace = str(Path(folder) / "ran")

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def written(name, content):
    """A `make` that writes one file; content: bytes, or a function of the folder that gives them."""

    def make(folder, tiny=None):
        path = Path(folder) / name
        path.write_bytes(content if isinstance(content, bytes) else content(folder))
        return path

    return make


# ------------------------------------------------------------------------------------------------ images, as files


def image(name, draw):
    def make(folder):
        path = Path(folder) / name
        draw(path)
        return path

    return make


def picture(mode, size, colour, **options):
    from PIL import Image

    return lambda path: Image.new(mode, size, colour).save(path, **options)


def noise_png(damage):
    def draw(path):
        from PIL import Image

        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
        content = bytearray(path.read_bytes())
        path.write_bytes(damage(content))

    return draw


def zeroed(content):
    content[3000:6000] = bytes(3000)
    return content


def deep_grey(path):
    from PIL import Image

    Image.fromarray(np.full((40, 40), 32896, np.uint16)).save(path)


def animation(path):
    from PIL import Image

    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def claims_60000_squared(path):
    import zlib

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def eps_that_writes(path):
    trace = path.with_name("ran")
    path.write_text(f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n({trace}) (w) file closefile\n")


def portrait(crop=False, box="whole"):
    """Reads an image file and prepares it as the command line does, small."""

    def use(path):
        from dicetalk.media.image import load_image
        from dicetalk.media.portrait import prepare_portrait

        picture = load_image(path)
        width, height = picture.size
        face = {"whole": (0, 0, width, height), "none": None}[box]
        prepared = prepare_portrait(picture, face, short_side=64, crop=crop)
        colour = ",".join(map(str, picture.getpixel((width // 2, height // 2))))
        return f"{picture.mode} {width}×{height} of {colour} → {prepared.image.width}×{prepared.image.height}"

    return use


IMAGE_FILES = [
    Row("image 1×1", image("a.png", picture("RGB", (1, 1), "red")), portrait(), "covers less than 2 pixels"),
    Row("image 1×1, face unknown", image("a.png", picture("RGB", (1, 1), "red")), portrait(box="none"), "No face"),
    Row(
        "image 20,000×20",
        image("a.png", picture("RGB", (20_000, 20), "red")),
        portrait(),
        "20000×20 pixels, more than 8 times as long as wide: cut it",
    ),
    Row(
        "image 20,000×20, cropped",
        image("a.png", picture("RGB", (20_000, 20), "red")),
        portrait(crop=True),
        gives="20000×20 of 255,0,0 → 64×64",
    ),
    Row("image of 16 bits", image("a.png", deep_grey), portrait(), gives="RGB 40×40 of 128,128,128"),
    Row("image in CMYK", image("a.jpg", picture("CMYK", (40, 40), (0, 255, 255, 0))), portrait(), gives="RGB .* of 2"),
    Row("animated GIF", image("a.gif", animation), portrait(), gives="RGB 40×40 of 255,0,0"),
    Row("animated WebP", image("a.webp", animation), portrait(), gives=r"RGB 40×40 of 25\d,"),
    Row("image with alpha", image("a.png", picture("RGBA", (40, 40), (0, 0, 0, 1))), portrait(), gives="254,254,254"),
    Row("image all clear", image("a.png", picture("RGBA", (40, 40), (9, 9, 9, 0))), portrait(), gives="of 9,9,9"),
    Row("image cut off", image("a.png", noise_png(lambda content: content[:3000])), portrait(), "a.png cannot be read"),
    Row("image with a hole", image("a.png", noise_png(zeroed)), portrait(), "a.png cannot be read as an image"),
    Row("image that claims 60000×60000", image("a.png", claims_60000_squared), portrait(), "too many pixels"),
    Row("PostScript called PNG", image("a.png", eps_that_writes), portrait(), "not an image of a known format"),
    Row("web page called PNG", written("a.png", b"<!DOCTYPE html>"), portrait(), "not an image of a known format"),
]


# ------------------------------------------------------------------------------------------------- audio, as files


def sound(seconds=1.0, rate=16000, channels=1, level=0.0):
    def make(folder):
        path = Path(folder) / "a.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(struct.pack("<h", round(level * 32767)) * (round(seconds * rate) * channels))
        return path

    return make


def float_wav(samples):
    data = np.asarray(samples, "<f4").tobytes()
    size = len(data)
    form = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 3, 1, 16000, 64000, 4, 32, b"data", size
    )
    return written("a.wav", form + data)


def three_hours(folder):
    """Of silence, in large blocks at a low rate, as decoding a usual file would only take time."""
    import av

    path, rate = Path(folder) / "a.flac", 1000
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=rate, layout="mono", options={"frame_size": "65535"})
        for minute in range(180):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 60 * rate), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = rate, minute * 60 * rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def silent_video(folder):
    import av

    path = Path(folder) / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    return path


def heard(**piece):
    """Reads an audio file as the command line does."""

    def use(path):
        from dicetalk.media.audio import load_audio
        from dicetalk.model.audio import audio_features, num_frames

        samples = load_audio(path, **piece)
        if num_frames(len(samples)) == 0:
            audio_features(None, samples)
        return f"{len(samples)} samples, {num_frames(len(samples))} frames, peak {np.abs(samples).max():.1f}"

    return use


def clip_heard(path):
    """Reads the sound of a reference clip."""
    from dicetalk.reading.files import open_clip

    return f"{sum(map(len, open_clip(path).audio()))} samples"


def heard_where(free):
    """Reads an audio file where that many bytes are free for it."""

    def use(path):
        from unittest import mock

        taken = mock.Mock(side_effect=lambda device: free - taken.call_count * 60 * 16_000 * 4)
        with mock.patch("dicetalk.media.audio.free_memory", taken):
            return heard()(path)

    return use


def spoken_whole(free):
    """Gives the pipeline three hours of speech where that many bytes are free; the work itself is not done."""

    def use(tiny):
        from unittest import mock

        from PIL import Image

        from dicetalk.media.portrait import prepare_portrait
        from dicetalk.pipeline import DiceTalkPipeline

        pipeline = DiceTalkPipeline.from_checkpoint(tiny)
        portrait = prepare_portrait(Image.new("RGB", (64, 64)), (0, 0, 64, 64), short_side=64)
        begun = mock.Mock(side_effect=RuntimeError("the work began"))
        with (
            mock.patch("dicetalk.pipeline.free_memory", lambda device: free),
            mock.patch.object(pipeline, "encode", begun),
        ):
            try:
                pipeline(portrait, np.zeros(10_800 * 16_000, np.float32), emotion=None)
            except RuntimeError as error:
                return error

    return use


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n%s\n#EXT-X-ENDLIST\n"

AUDIO_FILES = [
    Row("silence", sound(), heard(), gives="^16000 samples, 13 frames, peak 0"),
    Row("one sample", sound(1 / 16000), heard(), gives="^1 samples, 1 frames"),
    Row("sound at 8 kHz", sound(rate=8000, level=0.5), heard(), gives="^16000 samples, 13 frames, peak 0.[56]"),
    Row("sound at 192 kHz", sound(rate=192_000, level=0.5), heard(), gives="^16000 samples, 13 frames, peak 0.5"),
    Row("sound of 8 channels", sound(channels=8, level=0.5), heard(), gives="^16000 samples, 13 frames, peak 1.4"),
    Row(
        "sound that claims 1 Hz", sound(16000, rate=1), heard(), "sampling rate of .*a.wav is 1 Hz, and 1000 to 768000"
    ),
    Row("clip that claims 1 Hz", sound(16000, rate=1), clip_heard, "sampling rate of .*a.wav is 1 Hz"),
    Row("sound that claims 1 MHz", sound(0.1, rate=10**6), heard(), "sampling rate of .*a.wav is 1000000 Hz"),
    Row("sound at the highest rate", sound(rate=768_000, level=0.5), heard(), gives="^16000 samples, 13 frames"),
    Row("sound from beyond numbers on", sound(), heard(start=1e308), "start is 1e[+]308 s: give 0 to 172800 seconds"),
    Row("sound of a length beyond numbers", sound(), heard(length=1e308), "length is 1e[+]308 s: give more than 0 and"),
    Row(
        "3 h of sound, where 100 MB are free",
        three_hours,
        heard_where(1e8),
        "a.flac, as far as it was read, lasts [0-9]+ s, which needs 0.1 GB .* give [67][0-9]+ s of it at most",
    ),
    Row("sound with NaN", float_wav([0.0] * 8000 + [np.nan] * 8000), heard(), "a.wav holds samples .* not finite"),
    Row("sound of no length", sound(0), heard(), "a.wav holds no sound|a.wav cannot be read"),
    Row("3 h of sound, a second near the end", three_hours, heard(start=10_790, length=1), gives="^16000 samples, 13"),
    Row("3 h of sound, started after its end", three_hours, heard(start=10_801), "past the end of .*lasts 10800.00 s"),
    Row("video without sound", silent_video, heard(), "a.mp4 has no audio track"),
    Row("playlist of another folder", written("a.m3u8", PLAYLIST % b"/etc/hostname"), heard(), "a.m3u8"),
    Row("web page called WAV", written("a.wav", b"<!DOCTYPE html>"), heard(), "a.wav cannot be read"),
]


# ------------------------------------------------------------------------------------------------- boxes and masks

BIG = 10**400


def boxed(box):
    from PIL import Image

    from dicetalk.media.portrait import prepare_portrait

    prepared = prepare_portrait(Image.new("RGB", (100, 50)), box, short_side=64)
    return f"face {prepared.face_box}"


def masked(mask):
    from PIL import Image

    from dicetalk.media.portrait import prepare_portrait

    prepared = prepare_portrait(Image.new("RGB", (100, 50)), mask=mask, short_side=64)
    return f"face {prepared.face_box}, mask {prepared.face_mask.min():g} to {prepared.face_mask.max():g}"


def value(given):
    return lambda folder: given


BOXES = [
    Row("box outside", value((200, 10, 220, 20)), boxed, "200,10,220,20 is outside the image, which is 100×50"),
    Row("box inverted", value((50, 10, 20, 20)), boxed, "is inverted or empty"),
    Row("box of three numbers", value((1, 2, 3)), boxed, "is not four numbers"),
    Row("box of text", value("face"), boxed, "largest, left or right"),
    Row("box with NaN", value((1, 2, float("nan"), 4)), boxed, "not a finite number"),
    Row("box of numbers beyond floats", value((0, 0, BIG, BIG)), boxed, "is not four numbers"),
    Row("box larger than the image", value((-1e9, -1e9, 1e9, 1e9)), boxed, gives=r"face \(0.0, 0.0, 100.0, 50.0\)"),
]

MASKS = [
    Row("mask of another size", value(np.ones((50, 101))), masked, r"\(50, 101\), but the image needs .* \(50, 100\)"),
    Row("mask of a size that is turned", value(np.ones((100, 50))), masked, "shape"),
    Row("mask empty", value(np.zeros((50, 100))), masked, "The face mask is empty"),
    Row("mask full", value(np.ones((50, 100))), masked, "The face mask covers 100% of the picture"),
    Row("mask with NaN", value(np.full((50, 100), np.nan)), masked, "mask holds values that are not finite"),
    Row("mask of wild values", value(1e30 * np.pad(np.ones((30, 40)), ((10,), (30,)))), masked, gives="mask 0 to 1"),
    Row("mask of no dimensions", value(np.float32(1)), masked, "mask has shape"),
]


# -------------------------------------------------------------------------------------------------- emotion files

SAVED = {"format": "dicetalk-emotion", "version": "1"}
PLAIN = {"kind": "emotion", "name": "", "provenance": "", "bank": {"mode": "full", "top_k": 8, "temperature": 1}}


def saved(record=PLAIN, mean=(1, 256), deviation=None, fill=0.0, **metadata):
    """The bytes of a saved emotion."""
    tensors = {"mean": torch.full(mean, fill), "deviation": torch.zeros(deviation or mean)}
    return save(tensors, {**SAVED, "emotion": json.dumps(record), **metadata})


def with_header(header, data=b"", claims=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if claims is None else claims).to_bytes(8, "little") + text + data


def prior(contents, protocol=3):
    """A .npy file with a pickled 0-d object array, as the published priors are."""
    import io

    array = np.empty((), dtype=object)
    array[()] = contents
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
    pickle.dump(array, stream, protocol=protocol)
    return stream.getvalue()


def npy(header, data=b""):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def loaded(path):
    from dicetalk.emotion.files import load_emotion

    return repr(type(load_emotion(path)))


def as_prior(path):
    from dicetalk.checkpoints.priors import load_prior

    return repr(type(load_prior(path)))


def mu(shape=(1, 256), fill=0.0):
    return {"mu": np.full(shape, fill, np.float32)}


MANY_KEYS = "[" + "{}," * 3_000_000 + "0]"
EMOTION_FILES = [
    *(
        Row(
            f"emotion that is a pickle with code, {place}",
            written("joy.npy", content),
            as_prior,
            "joy.npy is no emotion",
        )
        for place, content in {
            "protocol 2": lambda folder: prior(Runs(folder), 2),
            "protocol 5": lambda folder: prior(Runs(folder), 5),
            "as the mean": lambda folder: prior({"mu": Runs(folder)}),
            "beside the mean": lambda folder: prior({**mu(), "more": Runs(folder)}),
            "bare": lambda folder: pickle.dumps(Runs(folder)),
        }.items()
    ),
    *(
        Row(
            f"saved emotion that is a pickle with code, {place}",
            written("joy.safetensors", content),
            use,
            "joy.safetensors(: not a readable safetensors file| is no emotion prior)",
        )
        for use, place in ((loaded, "loaded"), (as_prior, "in a checkpoint"))
        for content in (lambda folder: pickle.dumps(Runs(folder)),)
    ),
    Row("prior of a wrong shape", written("joy.npy", prior(mu((1, 128)))), as_prior, r"shape \(1, 128\)"),
    Row("prior of three dimensions", written("joy.npy", prior(mu((1, 1, 256)))), as_prior, "has the shape"),
    Row("prior with NaN", written("joy.npy", prior(mu(fill=np.nan))), as_prior, "'mu' holds numbers .* not finite"),
    Row(
        "prior that claims a terabyte",
        written("joy.npy", npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }\n")),
        as_prior,
        "has the shape",
    ),
    Row("prior with a huge header", written("joy.npy", npy(b"{" + b" " * 65_000)), as_prior, "header is damaged"),
    Row("prior of a deep header", written("joy.npy", npy(b"[" * 60_000)), as_prior, "header is damaged"),
    Row("prior of 10 GB", lambda folder: hole(folder, "joy.npy", 10**10), as_prior, "larger than 64 KiB"),
    Row(
        "saved emotion of a wrong shape", written("joy.safetensors", saved(mean=(1, 255))), loaded, "must hold mean and"
    ),
    Row("saved emotion flat", written("joy.safetensors", saved(mean=(256,))), loaded, "must hold mean and deviation"),
    Row("saved emotion with NaN", written("joy.safetensors", saved(fill=float("nan"))), loaded, "not finite"),
    Row("saved emotion of 10 GB", lambda folder: hole(folder, "joy.safetensors", 10**10), loaded, "too large"),
    Row(
        "saved emotion with a huge header",
        written("joy.safetensors", with_header({"__metadata__": {**SAVED, "emotion": MANY_KEYS}})),
        loaded,
        "its header claims more than 4 MB",
    ),
    Row(
        "saved emotion with a huge header, in a checkpoint",
        written("joy.safetensors", with_header({"__metadata__": {**SAVED, "emotion": MANY_KEYS}})),
        as_prior,
        "larger than 64 KiB",
    ),
    Row(
        "saved emotion whose header lies of its length",
        written("joy.safetensors", with_header(b"{}", claims=2**63)),
        loaded,
        "header claims more than 4 MB",
    ),
    Row(
        "saved emotion whose header lies of its data",
        written(
            "joy.safetensors",
            with_header(
                {"__metadata__": SAVED, "mean": {"dtype": "F32", "shape": [2**40, 256], "data_offsets": [0, 2**50]}}
            ),
        ),
        loaded,
        "not a readable safetensors file",
    ),
    Row(
        "saved emotion, text nested deep", written("joy.safetensors", saved(emotion="[" * 10**6)), loaded, "no readable"
    ),
    Row("saved emotion, numbers too long", written("joy.safetensors", saved(emotion="9" * 9999)), loaded, "joy.saf"),
    Row(
        "saved emotion of another kind",
        written("joy.safetensors", saved({**PLAIN, "kind": "os"})),
        loaded,
        "describes 'os'",
    ),
    Row("saved emotion as it should be", written("joy.safetensors", saved()), loaded, gives="Emotion"),
]


def hole(folder, name, size):
    path = Path(folder) / name
    with open(path, "wb") as file:
        file.truncate(size)
    return path


# ---------------------------------------------------------------------------------------------------- checkpoints


def part(change, name="unet"):
    """A file of weights made from the tiny checkpoint's by a change of its tensors."""

    def make(folder, tiny):
        path = Path(folder) / f"{name}.pth"
        torch.save(change(torch.load(tiny / "DICE-Talk" / f"{name}.pth", weights_only=True), folder), path)
        return path

    return make


def cut(source, share):
    def make(folder, tiny):
        path = Path(folder) / Path(source).name
        content = (tiny / source).read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        return path

    return make


def packed(name, size=50_000_000):
    """A zip bomb: as PyTorch's files are laid out, but packed, some thousand times smaller than what comes out."""

    def make(folder, tiny=None):
        path = Path(folder) / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({}))
            archive.writestr("archive/data/0", bytes(size))
            archive.writestr("archive/version", "3\n")
        return path

    return make


def without(tensors, name):
    return {other: tensor for other, tensor in tensors.items() if other != name}


def calls(function, argument):
    """A file of weights whose pickle calls something that PyTorch's reader lets it call with a number."""

    def make(folder, tiny=None, name="unet.pth"):
        path = Path(folder) / name
        number = struct.pack("<q", argument)
        content = b"\x80\x02}X\1\0\0\0ac" + "\n".join(function).encode() + b"\n\x8a\x08" + number + b"\x85Rs."
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/byteorder", "little")
            archive.writestr("archive/version", "3\n")
        return path

    return make


TAKES_A_TERABYTE = calls(("builtins", "bytearray"), 2**40)


def torch_older(path):
    torch.save({"conv_in.bias": torch.zeros(32)}, path, _use_new_zipfile_serialization=False)
    return path


def as_unet(path):
    from dicetalk.checkpoints.loading import load_part

    return type(load_part("unet", path)).__name__


def whisper(change=None, **config):
    """A Whisper folder like the tiny checkpoint's, with other settings or another file of weights."""

    def make(folder, tiny):
        source = tiny / "whisper-tiny"
        settings = json.loads((source / "config.json").read_text()) | config
        (Path(folder) / "config.json").write_text(json.dumps(settings))
        if change is None:
            (Path(folder) / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
        else:
            change(Path(folder), tiny)
        return Path(folder)

    return make


def as_whisper(folder):
    from dicetalk.checkpoints.whisper import load_whisper_encoder

    encoder = load_whisper_encoder(folder)
    return f"{encoder.config.encoder_layers} layers, attention {encoder.config._attn_implementation}"


def whisper_weights(tiny):
    from safetensors.torch import load_file

    return load_file(tiny / "whisper-tiny" / "model.safetensors")


def older_whisper(folder, tiny, weights=None):
    """Good weights, in the format that PyTorch wrote before 1.6."""
    weights = weights or whisper_weights(tiny)
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def tarred_whisper(folder, tiny):
    """In PyTorch's first format, a tar file of pickles, one of which asks for code."""
    import io
    import tarfile

    with tarfile.open(folder / "pytorch_model.bin", "w") as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            content = pickle.dumps(Runs(folder), protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def two_faced_whisper(folder, tiny):
    """The older format to who reads from the start, a zip file to who reads from the end."""
    older_whisper(folder, tiny)
    good = folder / "good"
    torch.save(whisper_weights(tiny), good)
    with open(folder / "pytorch_model.bin", "ab") as file:
        file.write(good.read_bytes())
    good.unlink()


def whisper_bin(change):
    """A `pytorch_model.bin` made from the tiny checkpoint's encoder by a change of its tensors."""

    def write(folder, tiny):
        torch.save(change(whisper_weights(tiny)), folder / "pytorch_model.bin")

    return write


def with_tied_weights(tensors):
    """As a whole Whisper has them: the decoder's embedding is its output projection too."""
    embedding = torch.zeros(1_000_000)
    return {**tensors, "model.decoder.embed_tokens.weight": embedding, "proj_out.weight": embedding}


def pickled_whisper(folder, tiny):
    torch.save({"model.encoder.conv1.weight": Runs(folder)}, folder / "pytorch_model.bin")


def svd(name, change):
    """A Stable Video Diffusion folder like the tiny checkpoint's with one file changed; bytes → bytes."""

    def make(folder, tiny):
        import shutil

        copy = Path(folder) / "svd"
        shutil.copytree(tiny / "stable-video-diffusion-img2vid-xt", copy)
        (path,) = copy.glob(name)
        path.write_bytes(change(path.read_bytes()))
        return copy

    return make


def svd_tensors(part, change):
    """A Stable Video Diffusion folder like the tiny checkpoint's with other tensors in one part."""
    from safetensors.torch import load

    return svd(f"{part}/*.safetensors", lambda content: save(change(load(content)), {"format": "pt"}))


def as_svd(folder):
    from dicetalk.checkpoints.svd import TOWER, VAE, load_svd_part

    load_svd_part(folder, VAE, torch.float32)
    encoder = load_svd_part(folder, TOWER, torch.float32)
    return f"attention {encoder.config._attn_implementation}"


def setting(**changes):
    return lambda content: json.dumps(json.loads(content) | changes).encode()


OLD_FORMAT = "is neither safetensors nor a zip file of PyTorch's"
CHECKPOINTS = [
    Row("UNet cut off", cut("DICE-Talk/unet.pth", 0.7), as_unet, "unet.pth, taken for .*truncated or damaged"),
    Row(
        "UNet with a further tensor",
        part(lambda t, f: {**t, "more.weight": torch.zeros(1)}),
        as_unet,
        "more.weight unexp",
    ),
    Row("UNet that lacks a tensor", part(lambda t, f: without(t, "conv_in.bias")), as_unet, "conv_in.bias missing"),
    Row(
        "UNet with a misshapen tensor",
        part(lambda t, f: {**t, "conv_in.bias": torch.zeros(7)}),
        as_unet,
        r"conv_in.bias \(7 instead of 32\) misshapen",
    ),
    Row("pose guider for a UNet", part(lambda t, f: t, "pose_guider"), as_unet, "is DICE-Talk's pose guider"),
    Row(
        "another model's UNet",
        part(lambda t, f: {"down_blocks.0.resnets.0.conv1.weight": torch.zeros(1)}),
        as_unet,
        "the UNet or ControlNet of another model",
    ),
    Row(
        "UNet with code",
        part(lambda t, f: {**t, "more": Runs(f)}),
        as_unet,
        "asks for code to be run, which was refused",
    ),
    Row("zip bomb for a UNet", packed("unet.pth"), as_unet, "packed zip file, as PyTorch never writes them"),
    Row(
        "UNet that claims a terabyte",
        part(lambda t, f: {"a": torch.zeros(1).expand(10**12)}),
        as_unet,
        "claim more data than the file holds",
    ),
    Row(
        "safetensors whose header lies of its length",
        written("unet.safetensors", with_header(b'{"a":{}}', claims=2**60)),
        as_unet,
        "its header claims 1152921504606846976 bytes of 16",
    ),
    Row(
        "safetensors whose header lies of its data",
        written("unet.safetensors", with_header({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}})),
        as_unet,
        "truncated or damaged",
    ),
    Row(
        "safetensors whose tensors overlap",
        written(
            "unet.safetensors",
            with_header({n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "ab"}, bytes(8)),
        ),
        as_unet,
        "truncated or damaged",
    ),
    Row(
        "Whisper with code",
        whisper(pickled_whisper),
        as_whisper,
        "pytorch_model.bin, taken for Whisper's weights, .*asks for code to be run, which was refused",
    ),
    Row(
        "UNet whose pickle takes a terabyte of memory",
        TAKES_A_TERABYTE,
        as_unet,
        "asks for code to be run, which was refused",
    ),
    Row(
        "Whisper whose pickle takes a terabyte of memory",
        whisper(lambda folder, tiny: TAKES_A_TERABYTE(folder, name="pytorch_model.bin")),
        as_whisper,
        "asks for code to be run, which was refused",
    ),
    Row(
        "Whisper that claims a terabyte",
        whisper(whisper_bin(lambda t: {**t, "more": torch.zeros(1).expand(2**38)})),
        as_whisper,
        "claim more data than the file holds",
    ),
    Row(
        "Whisper with a number for a tensor",
        whisper(whisper_bin(lambda t: {**t, "model.encoder.conv1.weight": 5})),
        as_whisper,
        "something other than a dictionary of names and tensors",
    ),
    Row("Whisper that is a list", whisper(whisper_bin(list)), as_whisper, "something other than a dictionary"),
    Row("Whisper as a .bin", whisper(whisper_bin(lambda t: t)), as_whisper, gives="^4 layers"),
    Row("Whisper whose names share data", whisper(whisper_bin(with_tied_weights)), as_whisper, gives="^4 layers"),
    Row(
        "Whisper of whole numbers",
        whisper(whisper_bin(lambda t: {name: tensor.to(torch.int8) for name, tensor in t.items()})),
        as_whisper,
        "conv1.weight is not of floating point",
    ),
    Row(
        "Whisper whose header lies of its length",
        whisper(lambda folder, tiny: written("model.safetensors", with_header(b'{"a":{}}', claims=2**60))(folder)),
        as_whisper,
        "its header claims 1152921504606846976 bytes of 16",
    ),
    Row(
        "Whisper with settings nested deep",
        whisper(lambda folder, tiny: (folder / "config.json").write_text("[" * 200_000)),
        as_whisper,
        "config.json cannot be read",
    ),
    Row(
        "zip bomb for Whisper",
        whisper(lambda folder, tiny: packed("pytorch_model.bin")(folder)),
        as_whisper,
        "packed zip file, as PyTorch never writes them",
    ),
    Row("Whisper in PyTorch's older format", whisper(older_whisper), as_whisper, OLD_FORMAT),
    Row(
        "Whisper in PyTorch's older format, with code",
        whisper(lambda folder, tiny: older_whisper(folder, tiny, {"model.encoder.conv1.weight": Runs(folder)})),
        as_whisper,
        OLD_FORMAT,
    ),
    Row("Whisper in a tar file", whisper(tarred_whisper), as_whisper, OLD_FORMAT),
    Row("Whisper in the older format before a zip", whisper(two_faced_whisper), as_whisper, OLD_FORMAT),
    Row(
        "UNet in PyTorch's older format",
        lambda folder, tiny: torch_older(folder / "unet.pth"),
        as_unet,
        "is neither safetensors nor a zip file of PyTorch's",
    ),
    Row(
        "UNet in a pickle that begins as a zip does",
        written("unet.pth", b"PK\n." + bytes(100)),
        as_unet,
        "is not in PyTorch's zip format",
    ),
    Row("Whisper of a million layers", whisper(encoder_layers=10**6), as_whisper, "with 1000000 layers"),
    Row("Whisper of absurd width", whisper(d_model=10**15), as_whisper, "config.json does not describe a usable|fit"),
    Row(
        "Whisper that names an attention to fetch",
        whisper(
            attn_implementation="someone/attention", _attn_implementation="someone/attention", auto_map={"A": "b.c"}
        ),
        as_whisper,
        gives="^4 layers, attention (sdpa|eager)$",
    ),
    Row(
        "VAE cut off",
        svd("vae/*.safetensors", lambda c: c[: len(c) // 2]),
        as_svd,
        "vae cannot be read as Stable Video",
    ),
    *(
        Row(f"{title} {what}", svd_tensors(part, change), as_svd, f"{part} cannot be read as Stable Video .*{told}")
        for title, part, name in (
            ("VAE", "vae", "encoder.conv_in.weight"),
            ("CLIP", "image_encoder", "visual_projection.weight"),
        )
        for what, change, told in (
            ("that lacks a tensor", lambda t, name=name: without(t, name), f"{name} is missing"),
            ("of one other tensor", lambda t: {"x": torch.zeros(1)}, "and [0-9]+ more"),
            ("with a further tensor", lambda t: {**t, "more": torch.zeros(1)}, "more is unexpected"),
            ("with a misshapen tensor", lambda t, name=name: {**t, name: torch.zeros(3)}, ""),
            (
                "with whole numbers",
                lambda t, name=name: {**t, name: t[name].to(torch.int8)},
                f"{name} is not of floating point",
            ),
        )
    ),
    Row(
        "CLIP as older files are, with a counter",
        svd_tensors("image_encoder", lambda t: {**t, "vision_model.embeddings.position_ids": torch.arange(50)[None]}),
        as_svd,
        gives="^attention sdpa$",
    ),
    Row("VAE without settings", svd("vae/config.json", lambda c: b"[]"), as_svd, "vae cannot be read as Stable Video"),
    Row("CLIP cut off", svd("image_encoder/*.safetensors", lambda c: c[:100]), as_svd, "image_encoder cannot be read"),
    Row(
        "CLIP that names an attention to fetch",
        svd("image_encoder/config.json", setting(attn_implementation="someone/attention", auto_map={"A": "b.c"})),
        as_svd,
        gives="^attention sdpa$",
    ),
    Row(
        "3 h of sound, spoken whole, where 8 GB are free",
        lambda folder, tiny: tiny,
        spoken_whole(8e9),
        r"audio lasts 10800 s, which needs \d+\.\d GB of memory, and 8.0 GB are free: .* give \d+ s of it at most",
    ),
    Row(
        "3 h of sound, spoken whole, where there is room",
        lambda folder, tiny: tiny,
        spoken_whole(1e12),
        gives="^the work began$",
    ),
]


# ------------------------------------------------------------------------------------- names of saved emotions

NAMES = {
    "a parent": "../mine",
    "the parent": "..",
    "the folder": ".",
    "nothing": "",
    "a folder": "a/b",
    "a Windows folder": "a\\b",
    "an absolute path": "/tmp/mine",
    "a Windows path": "C:\\mine",
    "a drive": "C:mine",
    "a network path": "\\\\host\\share",
    "a hidden file": ".mine",
    "a NUL": "a\0b",
    "a line break": "a\nb",
    "a bell": "a\ab",
    "a device": "nul",
    "a device with an ending": "COM1.x",
    "a device and a space": "con .x",
    "a device with a superscript": "com¹",
    "a dot at the end": "mine.",
    "a space at the end": "mine ",
    "a wide slash": "a／b",
    "a division slash": "a∕b",
    "two dots in one character": "‥",
    "text that runs backwards": "a\u202eb",
    "no width": "a\u200bb",
    "a lone surrogate": "a\ud800b",
    "a stream": "mine:data",
    "a wildcard": "*",
    "quotes": 'a"b',
    "too much": "x" * 201,
    "too many bytes": "ü" * 101,
    "a preset": "happy",
    "a number": 7,
}
EMOTIONS = "emotions"


def named(name):
    def make(folder):
        (Path(folder) / EMOTIONS).mkdir()
        return Path(folder) / EMOTIONS, name

    return make


def linked(link, target):
    def make(folder):
        (Path(folder) / EMOTIONS).mkdir()
        (Path(folder) / "outside.safetensors").write_bytes(saved())
        (Path(folder) / EMOTIONS / link).symlink_to(target)
        return Path(folder) / EMOTIONS, "mine"

    return make


def save_as(given):
    from dicetalk.emotion.files import save_emotion, saved_path

    folder, name = given
    save_emotion(make_priors()["happy"], saved_path(folder, name))
    return "saved"


def read_as(given):
    from dicetalk.emotion.files import load_emotion, saved_path

    return load_emotion(saved_path(*given))


def listed(given):
    from dicetalk.emotion.files import saved_names

    return saved_names(given[0])


OUT, LOOP = "../outside.safetensors", "mine.safetensors"
UNFINISHED = ".mine.safetensors.1000000000-0123abcd.part"  # of a process that cannot be
SAVED_NAMES = [
    *(
        Row(f"{verb} an emotion under a name with {what}", named(name), use, "cannot name a saved emotion|the presets")
        for what, name in NAMES.items()
        for verb, use in (("save", save_as), ("load", read_as))
    ),
    *(
        Row(f"{verb} an emotion by a link {way}", linked("mine.safetensors", target), use, "is a link that leads out")
        for way, target in (
            ("out of the folder", OUT),
            ("to itself", LOOP),
            ("to nowhere", "/nowhere/mine.safetensors"),
        )
        for verb, use in (("save", save_as), ("load", read_as))
    ),
    *(
        Row(f"list emotions beside a link {way}", linked("mine.safetensors", target), listed, gives=r"^\[\]$")
        for way, target in (("out of the folder", OUT), ("to itself", LOOP))
    ),
    Row(
        "save an emotion where an unfinished file is a link out of the folder",
        linked(UNFINISHED, OUT),
        save_as,
        gives="saved",
        writes=(f"{EMOTIONS}/mine.safetensors", f"{EMOTIONS}/{UNFINISHED}"),
    ),
]

LIBRARY = [*IMAGE_FILES, *AUDIO_FILES, *BOXES, *MASKS, *EMOTION_FILES, *SAVED_NAMES]
