"""Measure how good talking videos are.

In the world of drawn people (docs/drawn-people.md), whose factors are known: people and sentences that nothing is
trained on are asked for with a checkpoint, and a reader reads emotion, mouth and identity off the frames. Printed is a
table of goals. The reader is a small network that was trained on drawings alone; --train-reader trains it again, and
prints its own error on people that it has never seen.

Or of any videos, with --videos: emotion accuracy, identity and lip sync, FID and FVD, by models that you supply. A
model is MODULE:FUNCTION of your own (docs/evaluation.md says what it gets and gives), or a classifier's folder."""

import math
from contextlib import contextmanager

HELP = "measure emotion, lips and identity: a checkpoint in the world of drawn people, or any videos"

EXAMPLES = (
    ("the table of goals, and a folder with all numbers and a sheet of faces", "--checkpoint mine --output report"),
    ("quickly: one person, short clips, few steps", "--checkpoint mine --people 1 --frames 13 --steps 8"),
    ("dialogues, and videos that are made again", "--checkpoint mine --only dialogue react --people 2"),
    ("what faster settings cost", "--checkpoint mine --only savings --people 2"),
    ("train the reader again, and print its error", "--train-reader reader.safetensors"),
    (
        "any videos, with a classifier of emotions and an embedding of faces",
        "--videos results --classifier my-classifier --identity my_models:embed",
    ),
)

FUNCTIONS = (
    ("identity", "MODULE:FUNCTION", "embedding of faces: cosine to the portrait's"),
    ("lips", "MODULE:FUNCTION", "lip sync of frames and sound"),
    ("picture_features", "MODULE:FUNCTION", "of pictures, for FID to the table's real videos (needs torchmetrics)"),
    ("clip_features", "MODULE:FUNCTION", "of clips, for FVD to the table's real videos (needs torchmetrics)"),
)
SECTIONS = ("goals", "harder", "savings", "dialogue", "react")


def add_arguments(parser):
    add = parser.add_argument
    add("--checkpoint", metavar="DIR", help="what is measured: folder of the weights, or its name")
    add("--output", metavar="DIR", help="write evaluation.json, evaluation.md and a sheet of faces into this folder")
    add("--clips", metavar="DIR", help="write every clip into this folder, as a video with its sound")
    add(
        "--only",
        nargs="+",
        choices=SECTIONS,
        default=["goals"],
        help="goals: the table of goals (default). harder: speech of one emotion with the label of another, doses of "
        "intensity and guidance. savings: few steps, guidance in an interval, other windows, half precision, fp8. "
        "dialogue: two people in one picture, each mouth against both tracks. react: videos with another emotion or "
        "another sentence, at several denoise",
    )
    add("--people", type=int, default=4, metavar="N", help="held-out people, each with all emotions (default: 4)")
    add("--frames", type=int, default=25, metavar="N", help="longest clip, 12.5 frames a second (default: 25)")
    add("--size", type=int, default=64, metavar="PIXELS", help="sides of the pictures, a multiple of 64 (default: 64)")
    add("--steps", type=int, metavar="N", help="sampling steps (default: 25, or a student's own)")
    add("--reference-scale", type=float, metavar="S", help="see generate (default: 3, or a student's own)")
    add("--emotion-scale", type=float, metavar="S", help="see generate (default: 6, or a student's own)")
    add("--embedder", metavar="FILE", help="a trained embedder: adds the goal of another person's clip")
    add("--reader", metavar="FILE", help="of drawn people (default: the one that comes with the source)")
    add("--seed", type=int, default=0, help="of the noise, and of the reader's training (default: 0)")
    add("--device", help="cpu, cuda, cuda:1, mps … (default: CUDA if there is one, else cpu)")
    videos = parser.add_argument_group("any videos")
    videos.add_argument(
        "--videos",
        metavar="PATH",
        help="measure these videos instead: a folder, in which a folder or a file is named by the emotion, or a table "
        "with the columns video, audio, portrait, emotion, level, real",
    )
    videos.add_argument("--classifier", metavar="DIR", help="Hugging Face image classifier of emotions")
    for name, metavar, text in FUNCTIONS:
        videos.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, help=text)
    reader = parser.add_argument_group("the reader of drawn people")
    reader.add_argument("--train-reader", metavar="FILE", help="train a reader and write it to this .safetensors file")
    reader.add_argument("--reader-steps", type=int, default=1200, metavar="N", help="of its training (default: 1200)")
    reader.add_argument(
        "--reader-faces", type=int, default=800, metavar="N", help="people it is trained on (default: 800)"
    )
    reader.add_argument(
        "--reader-people", type=int, default=50, metavar="N", help="held-out people to test it on (default: 50)"
    )


def run(args):
    """Print the tables. Returns 0, also where goals are not met."""
    _check(args)
    if args.train_reader is not None:
        return _train_reader(args)
    if args.videos is not None:
        return _videos(args)

    from itertools import count
    from pathlib import Path

    from tqdm import tqdm

    from ..batch.dialogue import render_dialogue
    from ..checkpoints.finding import resolve_checkpoint
    from ..checkpoints.priors import load_priors
    from ..files import write_errors
    from ..measure.dialogues import measure_dialogue
    from ..measure.drawn_clips import Sampling, Studio
    from ..measure.evaluation import Sheet, clip_file, markdown, write_evaluation
    from ..measure.goals import measure_goals, measure_harder
    from ..measure.reader import read_reader
    from ..measure.remade import measure_react
    from ..measure.savings import measure_savings
    from ..measure.scenes import Scenes
    from ..memory import choose_device
    from ..pipeline import DiceTalkPipeline
    from ..sampling.student import own_settings

    for folder in filter(None, (args.output, args.clips)):
        with write_errors(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
    reader, checkpoint = read_reader(args.reader), resolve_checkpoint(args.checkpoint)
    priors = _eight(load_priors(checkpoint.folder("emotions")), checkpoint)
    device = choose_device(args.device)
    pipeline = DiceTalkPipeline.from_checkpoint(checkpoint).to(device)
    reader.network.to(device)
    sheet, numbers = Sheet(), count()

    def on_clip(result, pictures):
        sheet.add(result, pictures)
        if args.clips:
            clip_file(args.clips, result, pictures, next(numbers))

    chosen = {name: getattr(args, name) for name in ("steps", "reference_scale", "emotion_scale")}
    sampling = Sampling(**own_settings(checkpoint.student, chosen | {"sampler": None}))
    studio = Studio(pipeline, reader, args.size, args.frames, args.seed, on_clip)
    embedder = _embedder(args, pipeline, priors) if args.embedder else None
    sections = {}
    for section in dict.fromkeys(args.only):
        with tqdm(desc=section, unit="clip", disable=None) as bar:

            def on_result(done, total):
                bar.total = total
                bar.update(done - bar.n)

            if section == "goals":
                rows = measure_goals(studio, priors, sampling, args.people, embedder, on_result)
            elif section == "harder":
                rows = measure_harder(studio, priors, sampling, args.people, on_result)
            elif section == "savings":
                rows = measure_savings(studio, priors, sampling, args.people, on_result=on_result)
            else:
                measure = {"dialogue": measure_dialogue, "react": measure_react}[section]
                with _folder(args.clips) as folder:
                    scenes = Scenes(
                        args.checkpoint,
                        reader,
                        folder,
                        render_dialogue,
                        sampling,
                        args.size,
                        args.frames,
                        args.seed,
                        args.device,
                    )
                    rows = measure(scenes, args.people, on_result=on_result)
        sections[section.capitalize()] = rows
    facts = _facts(args, checkpoint, reader, sampling)
    print(markdown(sections, facts))
    if args.output:
        write_evaluation(args.output, sections, facts, reader.errors)
        sheet.save(f"{args.output}/faces.png")
        print(f"Wrote {args.output}")
    return 0


@contextmanager
def _folder(clips):
    """Where videos are written: a folder that is kept, or one that is not."""
    import tempfile
    from pathlib import Path

    if clips:
        yield Path(clips)
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _check(args):
    from ..errors import InputError

    ways = [args.checkpoint, args.videos, args.train_reader]
    if sum(way is not None for way in ways) != 1:
        raise InputError(
            "Give --checkpoint DIR or --videos PATH, what is to be measured, or --train-reader FILE; one of them."
        )
    for name in ("people", "frames", "steps", "reader_steps", "reader_faces", "reader_people"):
        least, value = 2 if name == "frames" else 1, getattr(args, name)  # a change in time needs two
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}: give {least} or more.")
    if args.seed < 0:
        raise InputError(f"--seed is {args.seed}: give 0 or more.")
    for name in ("reference_scale", "emotion_scale"):
        if getattr(args, name) is not None and not 0 <= getattr(args, name) < math.inf:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}: give a number from 0 on.")
    if args.size < 64 or args.size % 64:
        raise InputError(f"--size {args.size}: give a multiple of 64.")
    if args.train_reader is not None and not args.train_reader.endswith(".safetensors"):
        raise InputError(f"--train-reader is {args.train_reader}: end its name with .safetensors.")


def _eight(priors, checkpoint):
    from ..emotion.options import NAMES
    from ..errors import InputError

    missing = [name for name in NAMES if name not in priors]
    if missing:
        raise InputError(f"{checkpoint.folder('emotions')} lacks {', '.join(missing)}: all eight emotions are needed.")
    return {name: priors[name] for name in NAMES}


def _embedder(args, pipeline, priors):
    """Reads the emotion off a drawn take: its blendshapes and its sound."""
    import numpy as np

    from ..embedder.files import load_embedder
    from ..emotion.options import FPS
    from ..reading.clip import Clip

    embedder = load_embedder(args.embedder, pipeline.audio_encoder, pipeline.audio_encoder.device)

    def read(take):
        times = np.arange(len(take)) / FPS
        clip = Clip(
            blendshapes=lambda: iter([(times, take.blendshapes)]),
            audio=lambda: iter([take.sound]),
            seconds=len(take) / FPS,
            name=f"take of person {take.person.number}",
        )
        return embedder.read(clip, priors).emotion

    return read


def _facts(args, checkpoint, reader, sampling):
    from ..measure.evaluation import MINIATURE, UNTRAINED

    errors = reader.errors
    return {
        "checkpoint": checkpoint.name,
        "weights": UNTRAINED if checkpoint.untrained else MINIATURE,
        "settings": {
            "sampling": f"{sampling.steps} steps of {sampling.sampler}, reference scale {sampling.reference_scale:g}, "
            f"emotion scale {sampling.emotion_scale:g}, {args.size}×{args.size} pixels, at most {args.frames} frames, "
            f"seed {args.seed}",
            "people": f"{args.people}, held out as their sentences are, and each in all emotions",
            "the reader's own error": f"emotion {errors['emotion']:.1%}, mouth {errors['mouth_correlation']:.3f}, "
            f"identity {errors['identity']:.1%}, on {errors['clips']} drawn clips of people it has never seen",
        },
    }


def _videos(args):
    from tqdm import tqdm

    from ..measure.evaluation import write_pages
    from ..measure.videos import Supplied, find_videos, markdown, measure_videos, supplied_function
    from ..memory import choose_device
    from ..reading.classifiers import Classifier

    videos = find_videos(args.videos)
    functions = {
        name: supplied_function(text, f"--{name.replace('_', '-')}")
        for name, *_ in FUNCTIONS
        if (text := getattr(args, name)) is not None
    }
    supplied = Supplied(
        Classifier(args.classifier, "image", choose_device(args.device)) if args.classifier else None,
        functions.get("identity"),
        functions.get("picture_features"),
        functions.get("clip_features"),
        functions.get("lips"),
    )
    with tqdm(total=len(videos), desc="videos", unit="video", disable=None) as bar:
        found = measure_videos(videos, supplied, lambda done, total: bar.update())
    print(markdown(found))
    if args.output:
        write_pages(args.output, found, markdown(found) + "\n")
        print(f"Wrote {args.output}")
    return 0


def _train_reader(args):
    from pathlib import Path

    from ..measure.reader import save_reader
    from ..measure.reader_training import ReaderOptions, error_table, make_reader
    from ..memory import choose_device
    from .progress import Progress

    options = ReaderOptions(faces=args.reader_faces, steps=args.reader_steps, seed=args.seed)
    with Progress() as progress:
        reader = make_reader(options, choose_device(args.device), args.reader_people, progress.tell)
    save_reader(args.train_reader, reader.network, reader.provenance, reader.errors)
    print(error_table(reader))
    print(f"Wrote {Path(args.train_reader).absolute()}")
    return 0
