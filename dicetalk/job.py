"""A job: one clip to make, as a value that is checked, has defaults and a digest."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from .embedder.options import ClipOptions
from .emotion.options import LONGEST, SUFFIX
from .errors import InputError
from .files import STATE_SUFFIX, sha256_of
from .sampling.speed import MOST_SKIPPED, PUBLISHED, SAMPLERS, SCHEDULES, SPEEDS
from .script.placing import METHODS as PLACING
from .script.text import is_file, read_script
from .script.timeline import FADE, LONGEST_FADE

CLIP = "clip:"  # before the path of a reference clip
LARGEST_SIZE = 2048
LARGEST_SCALE = 20
LARGEST_STRENGTH = 2
LARGEST_SIGMA = 1000
MOST_SEEDS = 100
FPS = ("12.5", "25")
DTYPES = ("float32", "float16", "bfloat16")
NOISES = ("usual", "published")
_WHERE = ("output", "device", "compile", "chart")  # they say where, or how fast, and not what
_FILES = ("portrait", "video", "audio", "script", "landmarks", "face_landmarker", "embedder")
DENOISE = 0.55  # of a video
_OF_VIDEOS = ("video", "denoise")
_WORDS = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}


@dataclass(frozen=True, kw_only=True)
class Job(ClipOptions):
    """One talking video to make: what from, how, and where it goes.

    Numbers may come as text, as a table's cells do. How a reference clip is read is in the fields of `ClipOptions`.

    Args:
        portrait: file of a picture of one person.
        video: instead of a portrait: file of a video of one person, who gets another emotion or another voice.
        audio: file of the speech; also a video, whose sound is taken. With a video, its own sound when None.
        emotion: text such as "happy:1.3" or "0s neutral; 1.5s happy", a saved or
            published (.npy) emotion's file, or "clip:FILE".
        output: the MP4 file to write.
        script: what is said, with emotions in brackets ("[happy] Hello. [sad 0.7] Bye."), or a .txt file of it;
            `emotion` is that of the words before the first bracket. None for no script.
        fade: seconds over which an emotion of the script comes, before its first word.
        place_words: how the script's words are placed in the speech: "auto", "whisper" or "sound".
        subtitles: whether the script's words are written as subtitles, beside the video (.srt) and in it.
        checkpoint: folder of the weights, or its name; the first one found when None.
        start, length: which piece of the audio, in seconds; to its end when the length is None. Of a video that keeps
            its own sound, also which piece of its pictures.
        fps: "12.5", the model's own, or "25".
        size: short side of the video in pixels.
        keep_resolution: whether the video is resized to the portrait's own pixels, or those of what is cut out of it.
        crop: whether the portrait is cut to a square around the face, of whose size `margin` is kept on every side.
        face: "x1,y1,x2,y2" or four numbers, hairline to chin, in pixels; or which of the faces that are found:
            "largest", "left", "right", or its number from the left. The largest when None.
        seed: of the noise.
        steps: of the sampler; 25 as published when None, or a student's own.
        best_of: how many seeds are sampled, from `seed` on; the one that the checkpoint's own classifier reads as asked
            is kept. More than 1 needs the order of the classifier's classes, as the meter does.
        meter: whether a chart of what that classifier reads in the video is written beside it.
        noise: "usual", of the seed, the same on every device; or "published", as the authors' script draws it on CUDA,
            by its own seed and for whole frames of speech, to compare videos with its.
        reference_scale: how closely the video keeps to the portrait; 3 as published when None, or a student's own.
        emotion_scale: guidance: how far the frames go beyond what the model draws without speech and emotion; 6 as
            published when None, or a student's own.
        speech_strength, emotion_strength: how much the speech and the emotion add inside the model, 0 to 2.
        denoise: with a video: how much of it is made again, from more than 0 to 1; `DENOISE` when None.
        decode_chunk_size: frames that are decoded at once, besides their context; as many as fit in memory when None.
        smaller_windows: whether windows may become shorter when memory runs out, which changes the result.
        sampler: "euler" as published, or "dpmpp_2m" for fewer steps, or "lcm"; "euler" when None, or a student's own.
        schedule: "karras" as published, or "align_your_steps" for fewer steps.
        guidance_from, guidance_to: sigmas between which guidance acts; 1000 and 0 for everywhere.
        guidance_reuse, deep_cache: of how many steps one computes guidance, and the inner levels of the UNet; 1: all.
        clamp_windows: whether windows end where the clip does.
        compile: whether the UNet's blocks are compiled, see `dicetalk.model.compiling`.
        device: such as "cuda"; CUDA if there is one, else the CPU, when None.
        dtype: "float32", "float16" or "bfloat16"; float16 on CUDA and float32 elsewhere when None.

    Raises:
        InputError: a value that cannot be meant; the message names the field.
    """

    portrait: str | None = None
    video: str | None = None
    audio: str | None = None
    emotion: str = "neutral"
    output: str
    script: str | None = None
    fade: float = FADE
    place_words: str = "auto"
    subtitles: bool = False
    checkpoint: str | None = None
    start: float = 0.0
    length: float | None = None
    fps: str = "25"
    size: int = 512
    keep_resolution: bool = False
    crop: bool = False
    margin: float = 0.5
    face: str | None = None
    seed: int = 0
    best_of: int = 1
    meter: bool = False
    noise: str = "usual"
    steps: int | None = None
    reference_scale: float | None = None
    emotion_scale: float | None = None
    speech_strength: float = 1.0
    emotion_strength: float = 1.0
    denoise: float | None = None
    decode_chunk_size: int | None = None
    smaller_windows: bool = False
    sampler: str | None = None
    schedule: str = "karras"
    guidance_from: float = 1000.0
    guidance_to: float = 0.0
    guidance_reuse: int = 1
    deep_cache: int = 1
    clamp_windows: bool = False
    compile: bool = False
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self):
        for name, value in _clean(vars(self), str).items():
            object.__setattr__(self, name, value)

    @property
    def strength(self) -> float:
        """How much noise sampling starts from: 1 for a portrait."""
        if self.video is None:
            return 1.0
        return DENOISE if self.denoise is None else self.denoise

    @property
    def speech(self) -> str:
        """The file that the speech is in."""
        return self.audio or self.video or ""

    @classmethod
    def of(cls, values: dict[str, Any], named: Callable[[str], str] = str) -> "Job":
        """The job of a table's row, or of a command line.

        Args:
            values: field → value; None and "" mean the default. "speed" is no field: its value is a name out of
                `SPEEDS`, whose settings are the defaults then.
            named: how an error calls a field, for instance "--seed" for "seed".

        Raises:
            InputError: an unknown field, one that is missing, or a value that cannot be meant.
        """
        known = defaults()
        given = {name: value for name, value in values.items() if value is not None and value != ""}
        for name in given:
            if name not in known:
                raise InputError(f"{named(name)} is no setting of a clip: there are {', '.join(map(named, known))}.")
        speed = given.get("speed", PUBLISHED)
        if not isinstance(speed, str) or speed not in SPEEDS:
            raise InputError(f"{named('speed')} is {speed}: give {', '.join(SPEEDS)}.")
        complete = known | (SPEEDS[speed] if speed != PUBLISHED else {}) | given
        del complete["speed"]
        for name, value in complete.items():
            if value is dataclasses.MISSING:
                raise InputError(f"{named(name)} is missing: every clip needs one.")
        return cls(**_clean(complete, named))

    @property
    def clip(self) -> str | None:
        """The reference clip that the emotion names; None for another emotion."""
        return self.emotion.removeprefix(CLIP) if self.emotion.startswith(CLIP) else None

    @property
    def saved_emotion(self) -> str | None:
        """The file of a saved emotion, or a published one, that the emotion names; None for another emotion."""
        return saved_emotion(self.emotion)

    @property
    def speed(self) -> str | None:
        """The name of the speed whose settings these are; None when they are those of none."""
        own = SPEEDS[PUBLISHED] | {name: value for name, value in vars(self).items() if value is not None}
        return next((name for name, these in SPEEDS.items() if these.items() <= own.items()), None)

    @property
    def guidance_interval(self) -> tuple[float, float] | None:
        """Lowest and highest sigma that are guided, None for all."""
        interval = (self.guidance_to, self.guidance_from)
        return None if interval == (0, LARGEST_SIGMA) else interval

    @property
    def face_choice(self) -> tuple[float, ...] | str | int | None:
        """What `prepare_portrait` takes as `face_box`: a box, or which of the faces that are found."""
        from .media.faces import parse_face

        return parse_face(self.face)

    def read_script(self, names=None):
        """The `dicetalk.script.text.Script` of the job; None without one. `names`: the emotions that are known."""
        return None if self.script is None else read_script(self.script, names)

    @property
    def srt(self) -> Path:
        """The file of the subtitles."""
        return Path(self.output).with_suffix(".srt")

    @property
    def metered(self) -> bool:
        """Whether the network's own reading of the emotion is needed."""
        return self.meter or self.best_of > 1

    @property
    def meter_file(self) -> Path:
        """The meter's chart: out.mp4 → out.meter.png."""
        return Path(self.output).with_suffix(".meter.png")

    @property
    def beside(self) -> list[Path]:
        """The files that are written beside the output: subtitles, the meter's chart."""
        return [self.srt] * self.subtitles + [self.meter_file] * self.meter

    def seeds(self) -> list["Job"]:
        """A job for each seed to sample: this one alone unless the best of several is to be kept."""
        return [dataclasses.replace(self, seed=self.seed + number, best_of=1) for number in range(self.best_of)]

    def check_files(self, named: Callable[[str], str] = str) -> None:
        """InputError for input files that are not there, and an output that could not be written or is one of them.

        Args:
            named: how an error calls a field.
        """
        from .media.container import check_writable

        read = [(name, getattr(self, name)) for name in ("portrait", "video", "audio")]
        read = [(name, file) for name, file in read if file is not None]
        if self.clip is not None:
            read.append(("emotion", self.clip))
        for name, file in read:
            if not Path(file).exists():
                raise InputError(f"{named(name)} is {file}, which does not exist: check the file's name.")
        if self.script is not None:
            self.read_script()
        elif self.subtitles:
            raise InputError(
                f"{named('subtitles')} needs {named('script')}: give what is said, as text or as a .txt file."
            )
        if self.subtitles:
            from .media.video import require_subtitles

            require_subtitles()
        output = Path(self.output)
        if output.suffix.lower() != ".mp4":
            raise InputError(
                f"{named('output')} is {output}: the video is an MP4 file, so give it a name that ends in .mp4."
            )
        check_writable(output, (f".seed{self.seed + self.best_of}" if self.best_of > 1 else "") + STATE_SUFFIX)
        if self.meter:
            check_writable(self.meter_file)
        for name, file in read:
            if self.meter and self.meter_file.exists() and self.meter_file.samefile(file):
                raise InputError(
                    f"{named('meter')} would write over {file}, which {named(name)} reads: rename the output."
                )
            if output.exists() and output.samefile(file):
                raise InputError(
                    f"{named('output')} is the file that {named(name)} reads, {file}: write to another one."
                )
        if self.clip is None:
            self.require_defaults(named, "emotion")

    def settings(self) -> dict[str, Any]:
        """Field → value as a video keeps them: files by name, not by folder; those of clips where there is one."""
        values = {name: getattr(self, name) for name in _fields()}
        if self.video is None:
            values = {name: value for name, value in values.items() if name not in _OF_VIDEOS}
        else:
            values["denoise"] = self.strength
            del values["portrait"]
        clip_fields = [field.name for field in dataclasses.fields(ClipOptions)]
        if self.clip is None:
            values = {name: value for name, value in values.items() if name not in clip_fields}
            values["emotion"] = Path(self.saved_emotion).name if self.saved_emotion else self.emotion
        else:
            for name in clip_fields:
                values[name] = Path(values[name]).name if isinstance(values[name], str) else values[name]
            values["emotion"] = CLIP + Path(self.clip).name
            del values["chart"]
        if is_file(self.script):
            values["script"] = Path(values["script"].strip()).name
        files = ("portrait", "video", "audio", "output")
        return values | {name: Path(values[name]).name for name in files if values.get(name)}

    def digest(self) -> str:
        """A fingerprint (SHA-256, hexadecimal) of all that the clip is made from, and of the files' contents.

        Equal jobs on other devices, or with another output, have the same. The checkpoint counts by its name.
        """
        values = {name: value for name, value in self.settings().items() if name not in _WHERE}
        files = {name: getattr(self, name) for name in _FILES} | {"emotion": self.clip or self.saved_emotion}
        for name, file in files.items():
            if name in values and file and os.path.isfile(file):
                values[name] = sha256_of(file)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@functools.cache
def _fields():
    of_clips = ClipOptions.__dataclass_fields__
    ordered = sorted(dataclasses.fields(Job), key=lambda field: field.name in of_clips)
    return {field.name: field for field in ordered}


def saved_emotion(text: str) -> str | None:
    """The path of a file that a text for an emotion is; None for an emotion in words, and for a clip."""
    path = text.strip()
    return path if path.lower().endswith((SUFFIX, ".npy")) and not path.startswith(CLIP) else None


def defaults() -> dict[str, Any]:
    """Field of a `Job`, and "speed" → its default; `dataclasses.MISSING` for those that have to be given."""
    return {name: field.default for name, field in _fields().items()} | {"speed": PUBLISHED}


_NUMBERS: dict[str, tuple[type, Callable[[Any], bool], str]] = {
    "seed": (int, lambda value: 0 <= value < 2**63, "a whole number from 0 to 2^63 - 1"),
    "best_of": (int, lambda value: 1 <= value <= MOST_SEEDS, f"a whole number from 1 to {MOST_SEEDS}"),
    "steps": (int, lambda value: 1 <= value <= 1000, "a whole number from 1 to 1000; 25 is usual"),
    "size": (int, lambda value: 64 <= value <= LARGEST_SIZE, f"64 to {LARGEST_SIZE} pixels; 512 is usual"),
    "decode_chunk_size": (int, lambda value: value >= 1, "1 or more frames"),
    "reference_scale": (float, lambda value: 0 <= value <= LARGEST_SCALE, f"a number from 0 to {LARGEST_SCALE}"),
    "emotion_scale": (float, lambda value: 0 <= value <= LARGEST_SCALE, f"a number from 0 to {LARGEST_SCALE}"),
    "speech_strength": (float, lambda value: 0 <= value <= LARGEST_STRENGTH, "a number from 0 to 2"),
    "emotion_strength": (float, lambda value: 0 <= value <= LARGEST_STRENGTH, "a number from 0 to 2"),
    "denoise": (float, lambda value: 0 < value <= 1, "more than 0 and at most 1; 0.4 to 0.7 is usual"),
    "guidance_from": (float, lambda value: 0 <= value <= LARGEST_SIGMA, f"a sigma from 0 to {LARGEST_SIGMA}"),
    "guidance_to": (float, lambda value: 0 <= value <= LARGEST_SIGMA, f"a sigma from 0 to {LARGEST_SIGMA}"),
    "guidance_reuse": (int, lambda value: 1 <= value <= MOST_SKIPPED, f"1, every step, to {MOST_SKIPPED}"),
    "deep_cache": (int, lambda value: 1 <= value <= MOST_SKIPPED, f"1, every step, to {MOST_SKIPPED}"),
    "margin": (float, lambda value: math.isfinite(value) and value >= 0, "0 or a positive number"),
    "fade": (float, lambda value: 0 <= value <= LONGEST_FADE, f"0 to {LONGEST_FADE:g} seconds"),
    "start": (float, lambda value: 0 <= value <= LONGEST, f"0 to {LONGEST:g} seconds"),
    "length": (float, lambda value: 0 < value <= LONGEST, f"more than 0 and at most {LONGEST:g} seconds"),
}


def _clean(values, named):
    """The values in the fields' own types; InputError for one that cannot be meant."""
    clean = {}
    for name, value in values.items():
        if value is None and _fields()[name].default is None:
            clean[name] = None
        elif name in _NUMBERS:
            clean[name] = _number(named(name), value, *_NUMBERS[name])
        elif isinstance(_fields()[name].default, bool):
            clean[name] = _truth(named(name), value)
        else:
            clean[name] = _text(named(name), value)
    with suppress(ValueError):
        clean["fps"] = f"{float(clean['fps']):g}"  # "25.0"
    _require_sources(clean, named)
    if clean["best_of"] > 1 and clean["noise"] == "published":
        raise InputError(f"{named('best_of')} is {clean['best_of']}: the published noise has one seed, so give 1.")
    if clean["seed"] + clean["best_of"] > 2**63:
        raise InputError(f"{named('seed')} is {clean['seed']}: with {named('best_of')} the seeds go beyond 2^63 - 1.")
    _require_choice(named("fps"), clean, "fps", FPS)
    _require_choice(named("dtype"), clean, "dtype", DTYPES)
    _require_choice(named("noise"), clean, "noise", NOISES)
    _require_choice(named("place_words"), clean, "place_words", PLACING)
    _require_choice(named("sampler"), clean, "sampler", SAMPLERS)
    _require_choice(named("schedule"), clean, "schedule", SCHEDULES)
    if clean["guidance_to"] > clean["guidance_from"]:
        raise InputError(
            f"{named('guidance_to')} is {clean['guidance_to']:g}, above {named('guidance_from')}, "
            f"{clean['guidance_from']:g}: sigmas fall from 700 to 0, so give a smaller one."
        )
    if clean["face"] is not None:
        from .media.faces import parse_face

        parse_face(clean["face"], named("face"))
    return clean


def _require_sources(values, named):
    """InputError unless there is either a portrait with speech, or a video."""
    if values["video"] is not None and values["portrait"] is not None:
        raise InputError(
            f"{named('portrait')} and {named('video')} are both given, and a video takes the portrait's place: give "
            "one of them."
        )
    for name in ("portrait", "audio"):
        if values["video"] is None and values[name] is None:
            raise InputError(f"{named(name)} is missing: every clip needs one.")
    if values["video"] is None and values["denoise"] is not None:
        raise InputError(f"{named('denoise')} is set, which counts for a video alone: give {named('video')}.")


def _number(name, value, kind, fits, wanted):
    try:
        whole = kind is int and isinstance(value, str) and re.fullmatch(r"\s*\d+\.0+\s*", value)
        number = int(value.partition(".")[0]) if whole else kind(value)  # "7.0": a table with an empty cell beside it
        exact = not isinstance(value, bool) and (isinstance(value, str) or number == value or number != number)
    except (TypeError, ValueError, OverflowError):
        exact, number = False, value
    if not exact or not fits(number):
        raise InputError(f"{name} is {value}: give {wanted}.")
    return number


def _truth(name, value):
    truth = _WORDS.get(str(value).strip().lower())
    if truth is None:
        raise InputError(f"{name} is {value}: give true or false.")
    return truth


def _text(name, value):
    if isinstance(value, (list, tuple)) and value and all(isinstance(part, (int, float)) for part in value):  # a box
        return ",".join(f"{part:g}" for part in value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}"
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{name} is {value!r}: give text.")
    text = os.fspath(value)
    try:
        if "\0" not in text:
            os.fsencode(text)
            return text
    except UnicodeEncodeError:
        pass
    raise InputError(f"{name} is {text!r}, which has characters that no file has: correct them.")


def _require_choice(name, values, field, choices):
    if values[field] is not None and values[field] not in choices:
        raise InputError(f"{name} is {values[field]}: give {', '.join(choices[:-1])} or {choices[-1]}.")
