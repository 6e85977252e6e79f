"""What the commands that read a reference clip share: its options, and the reading."""

import tempfile
from pathlib import Path

from ..errors import InputError
from ..files import existing_folder

PREFIX = "clip:"
_READ = ("landmarks", "face_landmarker", "embedder", "portrait", "audio")  # options that name files
_DEFAULTS = {
    **{"embedder": "evidence", "landmarks": None, "face_landmarker": None, "face_model": None, "voice_model": None},
    **{"timeline": False, "chart": None},
}


def add_clip_arguments(parser, to_what=""):
    """Add the options; `to_what` says in the help what they belong to."""
    add = parser.add_argument_group("reference clip", to_what or None).add_argument
    add(
        "--embedder",
        default="evidence",
        metavar="FILE",
        help='what reads it: "evidence", which needs no training, or a trained embedder (.safetensors) '
        "(default: %(default)s)",
    )
    add("--landmarks", metavar="FILE", help="its blendshapes, 52 a frame, as .csv, .npy or .safetensors")
    add(
        "--face-landmarker",
        metavar="FILE",
        help="MediaPipe's face_landmarker.task, to find the blendshapes; needs the package mediapipe",
    )
    add(
        "--face-model",
        metavar="DIR",
        help="with evidence: a Hugging Face image-classification model of emotions, which looks at the face",
    )
    add(
        "--voice-model",
        metavar="DIR",
        help="with evidence: a Hugging Face audio-classification model of emotions, in place of prosody",
    )
    add("--timeline", action="store_true", help="follow the clip over time; otherwise one emotion for the whole clip")
    add("--chart", metavar="PNG", help="draw what was read over time")


def clip_path(argument):
    """The file that --emotion clip:PATH names; None for another emotion."""
    return argument.removeprefix(PREFIX) if argument.startswith(PREFIX) else None


def check_no_clip(args):
    """InputError for options of a clip where there is none."""
    for name, default in _DEFAULTS.items():
        if getattr(args, name) != default:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} tells how a clip is read, and --emotion names none: write --emotion clip:FILE.")


def clip_settings(args):
    """Command-line settings as they are kept in a video: of clips only where there is one, files by their names."""
    from ..emotion.options import SUFFIX

    values = {name: value for name, value in vars(args).items() if name not in _DEFAULTS}
    path = clip_path(args.emotion)
    if path is None:
        saved = args.emotion.strip()
        return values | {"emotion": Path(saved).name if saved.endswith(SUFFIX) else args.emotion}
    kept = {name: getattr(args, name) for name in _DEFAULTS if name != "chart"}
    kept = {name: Path(value).name if isinstance(value, str) else value for name, value in kept.items()}
    return values | kept | {"emotion": PREFIX + Path(path).name}


def check_clip(path, args):
    """The Clip, and InputError for what is not there or does not fit, before any checkpoint is looked for."""
    from ..reading.files import open_clip

    if args.chart and Path(args.chart).suffix.lower() != ".png":
        raise InputError(f"--chart is {args.chart}: the chart is a PNG file; end its name with .png.")
    if args.embedder != "evidence" and not Path(args.embedder).is_file():
        raise InputError(f"--embedder is {args.embedder}: no such file; give a trained embedder, or evidence.")
    read = [path, *(getattr(args, name, None) for name in _READ)]
    for flag, target in (("--chart", args.chart), ("--output", args.output)):
        if target:
            _check_target(flag, Path(target), [Path(given) for given in read if given])
    return open_clip(path, args.landmarks, args.face_landmarker)


def _check_target(flag, target, read):
    """InputError for a file that could not be written, or is one of those that are read."""
    try:
        if target.is_dir():
            raise InputError(f"{flag} is {target}, a folder: name a file in it.")
        for given in read:
            if target.exists() and given.exists() and target.samefile(given):
                raise InputError(f"{flag} is {target}, a file that is read: write to another one.")
        with tempfile.TemporaryFile(dir=existing_folder(target.absolute().parent)):
            pass
    except OSError as error:
        raise InputError(f"{flag} is {target}, which cannot be written ({error.strerror or error}).") from error


def read_clip(clip, args, checkpoint, priors):
    """The Reading of an open clip, with a progress bar; the chart is drawn where the options ask for one."""
    from tqdm import tqdm

    from ..embedder.choice import choose_embedder
    from .device import choose_device

    whisper = checkpoint.folder("whisper") if args.embedder != "evidence" else None
    models = {"face_model": args.face_model, "voice_model": args.voice_model, "device": choose_device(args.device)}
    embedder = choose_embedder(args.embedder, whisper=whisper, **models)
    with tqdm(desc="Reading the clip", unit="s", disable=None, bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as bar:

        def on_progress(done, total):
            bar.total = total
            bar.update(done - bar.n)

        reading = embedder.read(clip, priors, timeline=args.timeline, on_progress=on_progress)
    if args.chart:
        from ..reading.chart import chart

        save_image(chart(reading, clip.name), args.chart)
    return reading


def save_image(image, path):
    """Save a PIL image as PNG, beside and renamed; tells where."""
    from ..files import written_beside

    try:
        with written_beside(path) as part:
            image.save(part, format="PNG")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error
    print(f"Wrote {Path(path).absolute()}")
