"""Train the learned emotion embedder: from a clip's face and voice to a Gaussian in the emotion space.

DATA holds recordings as ACTOR/EMOTION/LEVEL/CLIP.mp4 (with sound; or CLIP.wav, .flac, .m4a … beside it), or as MEAD has
them: ACTOR/video/VIEW/EMOTION/LEVEL/CLIP.mp4 and ACTOR/audio/EMOTION/LEVEL/CLIP.m4a. EMOTION is one of the eight.
Faces come from a file of blendshapes beside the clip (CLIP.csv, .npy or .safetensors, or
ACTOR/landmarks/EMOTION/LEVEL/CLIP.csv), or are found by MediaPipe (--face-landmarker). Features are computed once and
kept. The same command runs in many processes, on one machine or several: accelerate launch -m dicetalk train-embedder
DATA … On several machines, DATA, --cache and --output must be in folders that all of them share.

--synthetic needs no DATA: it proves the training on made-up clips with known identities and emotions."""

import os

from ..embedder import USES

HELP = "train the emotion embedder for reference clips"

EXAMPLES = (
    (
        "train on recordings, and find their faces with MediaPipe",
        "MEAD --checkpoint checkpoints --face-landmarker face_landmarker.task --output embedder.safetensors",
    ),
    ("continue an interrupted training", "MEAD --output embedder.safetensors --resume"),
    ("prove the training on made-up clips", "--synthetic --ablations --device cpu"),
)

_LACKING = {
    "both": "a face or a voice",
    "visual": "a face, which --use visual needs",
    "audio": "a voice, which --use audio needs",
}
_UNFITTED = 5.0  # temperature until it is fitted; the priors' squared distances to neutral are 12 to 26


def add_arguments(parser):
    parser.add_argument("data", metavar="DATA", nargs="?", help="the folder of recordings")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="the .safetensors file to write; needed, except with --synthetic. The training's state is kept beside it",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="checkpoint with Whisper and the emotion priors (default: the first that is found)",
    )
    parser.add_argument("--emotions", metavar="DIR", help="folder of the emotion priors, instead of the checkpoint's")
    parser.add_argument("--report", metavar="DIR", help="folder of the report (default: FILE's name with -report)")
    parser.add_argument(
        "--resume", action="store_true", help="continue a training that was interrupted, to the same result"
    )
    parser.add_argument(
        "--save-every",
        type=int,
        default=200,
        metavar="STEPS",
        help="how often the training's state is kept (default: %(default)s)",
    )
    parser.add_argument("--device", help="cpu, or what accelerate chooses when this is not given")
    parser.add_argument(
        "--mixed-precision",
        choices=("no", "bf16"),
        help="precision of the computation (default: as accelerate is configured, else no)",
    )

    data = parser.add_argument_group("recordings")
    data.add_argument("--view", default="front", help="which of MEAD's cameras (default: %(default)s)")
    data.add_argument(
        "--face-landmarker",
        metavar="TASK",
        help="MediaPipe's face_landmarker.task, for clips without a file of blendshapes; needs the package mediapipe",
    )
    data.add_argument("--cache", metavar="DIR", help="where features are kept (default: DATA/dicetalk-features)")
    data.add_argument("--extract-only", action="store_true", help="compute the features, and train another time")
    data.add_argument(
        "--held-out",
        nargs="+",
        metavar="ACTOR",
        help="actors to test on and not to train with (default: a fifth of them, drawn by the seed)",
    )

    training = parser.add_argument_group("training")
    for name, kind, text in OPTIONS:
        training.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=text)
    training.add_argument("--use", choices=USES, help="modalities to train with (default: both)")
    training.add_argument("--seed", type=int, help="of everything that is random (default: 0)")

    synthetic = parser.add_argument_group("proof on synthetic clips")
    synthetic.add_argument(
        "--synthetic",
        action="store_true",
        help="train and test on made-up clips, with made-up priors unless --emotions or --checkpoint is given",
    )
    synthetic.add_argument(
        "--ablations", action="store_true", help="train again without each part, and print one table"
    )
    synthetic.add_argument(
        "--seeds", type=int, metavar="N", help="repeat it with N seeds, from --seed on, and print means and ranges"
    )
    synthetic.add_argument("--identities", type=int, metavar="N", help="people to train with (default: 48)")
    synthetic.add_argument("--test-identities", type=int, metavar="N", help="people to test on (default: 16)")
    synthetic.add_argument("--takes", type=int, metavar="N", help="clips per person and emotion (default: 8)")


OPTIONS = (
    ("epochs", int, "passes over the clips (default: 8)"),
    ("batch", int, "clips per step and process (default: 64)"),
    ("rate", float, "learning rate (default: 3e-3)"),
    ("decay", float, "weight decay (default: 0.01)"),
    ("anchor", float, "weight of the Gaussian likelihood of the labelled emotion's prior (default: 1)"),
    ("contrastive", float, "weight of the contrastive loss across actors (default: 0.1)"),
    (
        "temperature",
        float,
        "of the contrastive loss: squared distance per dimension that counts as one (default: 0.01)",
    ),
    (
        "reversal",
        float,
        "weight of the gradient reversed from the identity classifier; 0 leaves it out (default: 15; with --use "
        "visual or audio 5)",
    ),
    ("reversal_start", float, "share of the training after which that begins (default: 0.3)"),
    ("drop", float, "share of clips whose face is hidden in a step, and as many whose voice is (default: 0.2)"),
    ("width", int, "of the network (default: 64)"),
    ("heads", int, "of its attention (default: 4)"),
    ("layers", int, "of its attention (default: 2; with --synthetic 1)"),
    ("code", int, "numbers that the Gaussian is computed from (default: 8)"),
)


def run(args):
    """Train, and write the embedder and the report. Returns 0."""
    from ..errors import InputError

    _check(args)
    try:
        import accelerate
        import matplotlib  # noqa: F401  (of the report, which comes last)
        import sklearn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"Training needs a package that is not installed ({error}): `pip install accelerate matplotlib "
            "scikit-learn`."
        ) from error
    import datetime

    waits = accelerate.InitProcessGroupKwargs(timeout=datetime.timedelta(hours=24))  # the others' feature extraction
    cpu = args.device == "cpu"
    accelerator = accelerate.Accelerator(cpu=cpu, mixed_precision=args.mixed_precision, kwargs_handlers=[waits])
    try:
        return _prove(args, accelerator) if args.synthetic else _train(args, accelerator)
    except OSError as error:
        place = error.filename or args.output
        raise InputError(f"{place}: cannot be read or written ({error.strerror or error}).") from error
    finally:
        accelerator.end_training()


def _check(args):
    from ..errors import InputError

    if args.synthetic == bool(args.data):
        raise InputError("Give the folder of recordings, or --synthetic instead.")
    for name in ("ablations", "seeds"):
        if getattr(args, name) and not args.synthetic:
            raise InputError(f"--{name} goes with --synthetic.")
    if not args.output and not args.synthetic and not args.extract_only:
        raise InputError("--output is missing: name the .safetensors file to write.")
    if args.output and not args.output.endswith(".safetensors"):
        raise InputError(f"--output {args.output}: give the embedder a name that ends in .safetensors.")
    if args.resume and not args.output:
        raise InputError("--resume needs --output, beside which the training's state is kept.")
    if args.device not in (None, "cpu"):
        raise InputError(
            f"--device {args.device}: give cpu or nothing; accelerate chooses among GPUs (CUDA_VISIBLE_DEVICES)."
        )
    for name, _, _ in OPTIONS:
        value, option = getattr(args, name), f"--{name.replace('_', '-')}"
        least = 0 if name in ("decay", "anchor", "contrastive", "reversal", "reversal_start", "drop") else None
        if value is not None and not (0 < value < float("inf") or value == least):
            raise InputError(
                f"{option} {value:g}: give a {'number of 0 or more' if least == 0 else 'positive number'}."
            )
    for name, most in (("drop", 0.5), ("reversal_start", 1.0)):
        if (getattr(args, name) or 0) > most:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name):g}: give {most:g} or less.")
    for name in ("identities", "test_identities", "takes", "save_every", "seeds"):
        if getattr(args, name) is not None and getattr(args, name) < 2:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: give 2 or more.")


def _given(args, cls, **renamed):
    """The arguments that were given and are fields of a dataclass."""
    import dataclasses

    names = {field.name: renamed.get(field.name, field.name) for field in dataclasses.fields(cls)}
    given = {name: getattr(args, argument, None) for name, argument in names.items() if argument != "emotions"}
    return {name: value for name, value in given.items() if value is not None}


def _settings(args, emotions, audio_features, **sizes):
    from ..embedder.model import EmbedderConfig
    from ..embedder.training import REVERSAL_ALONE, TrainingOptions
    from ..errors import InputError

    sizes = {**sizes, **_given(args, EmbedderConfig)}
    config = EmbedderConfig(tuple(emotions), audio_features=audio_features, **sizes)
    if config.width % (2 * config.heads):
        raise InputError(f"--width {config.width}: give a multiple of twice --heads, which is {2 * config.heads}.")
    given = _given(args, TrainingOptions)
    if given.get("use", "both") != "both":
        given.setdefault("reversal", REVERSAL_ALONE)
    return config, TrainingOptions(**given)


def _priors(args):
    """name → (256,) mean, and where they are from, by its name alone."""
    from pathlib import Path

    from ..checkpoints.finding import resolve_checkpoint
    from ..checkpoints.priors import load_priors
    from ..emotion.options import NAMES
    from ..errors import InputError

    if args.synthetic and not args.emotions and not args.checkpoint:
        import torch

        from ..checkpoints.tiny import emotion_means

        return {name: torch.from_numpy(mean) for name, mean in emotion_means().items()}, "made up"
    if args.emotions:
        folder, source = args.emotions, f"folder {Path(args.emotions).absolute().name}"
    else:
        checkpoint = resolve_checkpoint(args.checkpoint)
        folder, source = checkpoint.folder("emotions"), f"checkpoint {checkpoint.root.name}"
    priors = {name: emotion.mean for name, emotion in load_priors(folder).items() if name in NAMES}
    if "neutral" not in priors or len(priors) < 2:
        raise InputError(f"{folder} must hold the prior neutral and at least one other of {', '.join(NAMES)}.")
    return priors, source


def _prove(args, accelerator):
    from dataclasses import replace

    import torch

    from ..embedder.files import save_embedder
    from ..embedder.model import AUDIO_FEATURES
    from ..embedder.proof import ABLATIONS, CONFIG, prove
    from ..embedder.report import table
    from ..embedder.synthetic import SyntheticOptions

    priors, source = _priors(args)
    config, options = _settings(args, priors, AUDIO_FEATURES, **CONFIG)
    synthetic = SyntheticOptions(**_given(args, SyntheticOptions, train_identities="identities"))
    titles = list(ABLATIONS) if args.ablations else ["all"]
    results = {}
    _put_earlier_aside(args, accelerator)
    anchors = torch.stack(list(priors.values()))
    kept = {"state": _state(args), "save_every": args.save_every, "resume": args.resume}
    with _Progress(accelerator) as progress:
        for number in range(args.seeds or 1):
            seed = options.seed + number
            of_seed = replace(synthetic, seed=seed), replace(options, seed=seed)
            for title, embedder, temperature, result, history in prove(
                *(config, anchors, *of_seed, accelerator, titles),
                on_step=lambda title, *step, seed=seed: progress.tell(f"{title}, seed {seed}", *step),
                **(kept if number == 0 else {}),
            ):
                if not accelerator.is_main_process:
                    continue
                results.setdefault(title, []).append(result)
                if number > 0 or title != "all":
                    continue
                facts = _facts(options, embedder, source, accelerator, {"clips": f"synthetic, {synthetic}"})
                if args.output:
                    save_embedder(args.output, embedder, temperature, provenance=facts, use=options.use)
                _report(args, "The emotion embedder on synthetic clips", result, history, facts)
    if accelerator.is_main_process:
        seeds = f" Seeds {options.seed} to {seed}: the mean, and the range." if args.seeds else ""
        print(f"The identity probe's chance is {results['all'][0]['chance']:.2%}.{seeds}\n")
        print(table(results))
        _say_written(args)
    return 0


def _train(args, accelerator):
    import torch

    from ..checkpoints.finding import resolve_checkpoint
    from ..checkpoints.whisper import load_whisper_encoder
    from ..embedder.dataset import find_recordings
    from ..embedder.features import whisper_digest
    from ..embedder.files import save_embedder
    from ..embedder.processes import together
    from ..embedder.report import evaluate, fit_temperature
    from ..embedder.training import new_embedder, train

    encoder = together(lambda: load_whisper_encoder(resolve_checkpoint(args.checkpoint).folder("whisper")))
    digest = whisper_digest(encoder)
    recordings = together(lambda: find_recordings(args.data, args.view))
    files = _extract(args, recordings, encoder, digest, accelerator)
    if args.extract_only:
        return 0
    priors, source = together(lambda: _priors(args))
    config, options = _settings(args, priors, encoder.config.d_model)
    learning, held_out = together(lambda: _split(args, recordings, files, config, options, accelerator))
    embedder = new_embedder(config, torch.stack(list(priors.values())), learning, options.seed)
    _put_earlier_aside(args, accelerator)
    with _Progress(accelerator) as progress:
        history = train(
            *(embedder, learning, options, accelerator, _state(args), args.save_every, args.resume),
            on_step=lambda *step: progress.tell("training", *step),
        )
    if accelerator.is_main_process:
        counts = {"clips": f"{len(learning)} to train with, {len(held_out)} held out"}
        facts = _facts(options, embedder, source, accelerator, counts)
        # Written before anything else can fail, then again with what is fitted.
        save_embedder(args.output, embedder, _UNFITTED, digest, facts, options.use)
        result = evaluate(embedder, held_out, options.use)
        temperature = fit_temperature(embedder, held_out, options.use)
        save_embedder(args.output, embedder, temperature, digest, facts, options.use)
        _report(args, "The emotion embedder", result, history, facts)
        _say_written(args)
    accelerator.wait_for_everyone()
    return 0


def _extract(args, recordings, encoder, digest, accelerator):
    """The files of the recordings' features, None for those that cannot be read; each process computes its share."""
    import sys
    from pathlib import Path

    from tqdm import tqdm

    from ..embedder.dataset import CACHE, CacheError, extract, extracted
    from ..embedder.processes import check_same, together
    from ..errors import InputError

    cache = Path(args.cache or Path(args.data) / CACHE)
    if cache.exists() and cache.samefile(args.data):
        raise InputError(
            f"--cache {cache} is the folder of the recordings, where features would pass for landmarks: name another."
        )
    check_same(
        [str(each) for each in recordings],
        f"The processes do not find the same recordings in {args.data}: it must be a folder that all machines share.",
    )
    encoder.to(accelerator.device)

    def extract_own():
        own = recordings[accelerator.process_index :: accelerator.num_processes]
        shown = None if accelerator.is_main_process else True
        for recording in tqdm(own, desc="features", unit="clip", disable=shown):
            try:
                extract(recording, cache, encoder, digest, args.face_landmarker)
            except CacheError:
                raise
            except InputError as error:
                tqdm.write(f"{recording} is left out: {error}", sys.stderr)

    together(extract_own)
    encoder.to("cpu")
    there = [extracted(each, cache, digest, args.face_landmarker) for each in recordings]
    check_same(
        [path is not None for path in there],
        f"The processes do not find the same features in {cache}: name a --cache that all machines share.",
    )
    if not any(there):
        raise InputError(f"None of the {len(recordings)} recordings in {args.data} can be read; see above.")
    if accelerator.is_main_process:
        count = sum(path is not None for path in there)
        print(f"Features of {count} of {len(recordings)} recordings in {cache}", flush=True)
    return there


def _split(args, recordings, files, config, options, accelerator):
    """The clips to train with and those held out, of recordings with a cue that is used."""
    import random

    from ..embedder.dataset import KeptClips
    from ..errors import InputError

    emotions = config.emotions
    usable = [(each, path) for each, path in zip(recordings, files) if path is not None and each.emotion in emotions]
    clips = _clips(KeptClips, usable, emotions)
    cues = [(bool(clip[1].any()), bool(clip[3].any())) for clip in map(clips.__getitem__, range(len(clips)))]
    if accelerator.is_main_process:
        for number, cue in ((0, "face"), (1, "voice")):
            print(f"{sum(not each[number] for each in cues)} of {len(cues)} clips have no {cue}", flush=True)
    used = {"both": slice(0, 2), "visual": slice(0, 1), "audio": slice(1, 2)}[options.use]
    usable = [pair for pair, there in zip(usable, cues) if any(there[used])]
    if not usable:
        raise InputError(
            f"None of the {len(cues)} clips has {_LACKING[options.use]}. Faces are read from files of blendshapes "
            "beside the clips, or found with --face-landmarker; voices are sound that is not silent."
        )
    actors = sorted({each.actor for each, _ in usable})
    held_out = set(args.held_out or random.Random(options.seed).sample(actors, -(-len(actors) // 5)))
    if unknown := sorted(held_out - set(actors)):
        raise InputError(f"--held-out {unknown[0]}: there is no such actor; there are {', '.join(actors)}.")
    parts = [[pair for pair in usable if (pair[0].actor in held_out) == out] for out in (False, True)]
    if not all(parts):
        raise InputError(f"{len(actors)} actors are too few to hold some out and train with the others.")
    if accelerator.is_main_process:
        print(f"Held out: {', '.join(sorted(held_out))}", flush=True)
    return [_clips(KeptClips, part, emotions) for part in parts]


def _clips(cls, pairs, emotions):
    names = sorted({each.actor for each, _ in pairs})
    labels = [emotions.index(each.emotion) for each, _ in pairs]
    actors = [names.index(each.actor) for each, _ in pairs]
    return cls([path for _, path in pairs], labels, actors, [str(each) for each, _ in pairs])


def _facts(options, embedder, source, accelerator, more):
    import dataclasses

    import torch

    from .. import __version__

    shown = {name: value for name, value in dataclasses.asdict(embedder.config).items() if name != "emotions"}
    return {
        **more,
        "priors": source,
        "training": ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(options).items()),
        "network": ", ".join(f"{name} {value}" for name, value in shown.items()),
        "parameters": sum(parameter.numel() for parameter in embedder.parameters()),
        "processes": accelerator.num_processes,
        "versions": f"dicetalk {__version__}, PyTorch {torch.__version__}",
    }


def _state(args):
    return args.output and args.output.removesuffix(".safetensors") + ".training.safetensors"


def _put_earlier_aside(args, accelerator):
    """A state that is not to be resumed is kept under another name, as hours may be in it."""
    state = _state(args)
    if accelerator.is_main_process and state and not args.resume and os.path.exists(state):
        os.replace(state, f"{state}.old")
        print(f"Note: {state} is of an earlier training. This one starts again, and that one is now {state}.old.")


def _report_folder(args):
    return args.report or (args.output and args.output.removesuffix(".safetensors") + "-report")


def _report(args, title, result, history, facts):
    from ..embedder.report import write_report

    if _report_folder(args):
        write_report(_report_folder(args), title, result, history, facts)


def _say_written(args):
    from pathlib import Path

    if args.output:
        print(f"Wrote {Path(args.output).absolute()}")
    if _report_folder(args):
        print(f"The report: {Path(_report_folder(args)).absolute() / 'report.md'}")


class _Progress:
    """One progress bar for each training, in the main process."""

    def __init__(self, accelerator):
        self._shown, self._title, self._bar = accelerator.is_main_process, None, None

    def tell(self, title, done, total, losses):
        from tqdm import tqdm

        if not self._shown:
            return
        if title != self._title:
            self.close()
            self._title, self._bar = title, tqdm(total=total, initial=done - 1, desc=title, unit="step", disable=None)
        self._bar.set_postfix(anchor=f"{losses[1]:.2f}", identity=f"{losses[3]:.2f}", refresh=False)
        self._bar.update()

    def close(self):
        if self._bar is not None:
            self._bar.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
