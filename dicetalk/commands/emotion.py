"""Show emotions, mix and save them, read them from clips, and show the Emotion Bank.

An emotion is text, such as happy, happy:1.3, "(sad 0.7 + fear 0.3)" or "0s neutral; 1.5s happy:1.2 smooth", or the path
of a saved one (.safetensors) or a published one (.npy)."""

HELP = "show, mix and save emotions, read them from clips, show the Emotion Bank, and find a classifier's classes"

EXAMPLES = (
    ("what an emotion is", 'show "(sad 0.7 + fear 0.3)"'),
    ("save a mix", "mix happy surprised --weights 0.7 0.3 --output delight.safetensors"),
    (
        "read a clip, with its landmarks, as a timeline",
        "from-clip clip.mp4 --landmarks clip.csv --timeline --chart chart.png --output mine.safetensors",
    ),
    ("how the eight emotions correlate", "bank --output correlation.png"),
    ("which emotion each class of a checkpoint's classifier is", "classes --checkpoint checkpoints --portrait me.jpg"),
)


def add_arguments(parser):
    from ..emotion.options import METHODS, MODES, SPACES
    from .clips import add_clip_arguments

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    show = actions.add_parser("show", help="describe an emotion, and list which codes of the bank it uses")
    show.add_argument("emotion", metavar="EMOTION", help="text or a saved emotion")
    show.add_argument("--top", type=int, default=8, metavar="N", help="how many codes to list (default: %(default)s)")

    mix = actions.add_parser("mix", help="mix emotions and save the result; one alone is saved as it is")
    mix.add_argument("emotions", metavar="EMOTION", nargs="+", help="text or a saved emotion")
    mix.add_argument(
        "--weights", type=float, nargs="+", metavar="W", help="as many relative weights (default: equal ones)"
    )
    mix.add_argument("--method", choices=METHODS, default=METHODS[0], help="how to mix (default: %(default)s)")
    mix.add_argument("--name", help="the name of the saved emotion (default: the file's)")
    mix.add_argument("--output", required=True, metavar="FILE", help="the .safetensors file to write")

    clip = actions.add_parser(
        "from-clip",
        help="read the emotion of a face and a voice in a video, sound or picture",
        description="Read the emotion of a reference clip from the face's expression and the sound of the voice. This "
        "is not the embedder of the paper, whose weights were never released.",
    )
    clip.add_argument("clip", metavar="PATH", help="a video, a sound file or a picture")
    add_clip_arguments(clip)
    clip.add_argument("--output", metavar="FILE", help="save the emotion, as .safetensors")
    clip.add_argument("--name", help="the name of the saved emotion (default: the file's)")
    clip.add_argument("--checkpoint", metavar="DIR", help="checkpoint folder (default: the first that is found)")
    clip.add_argument(
        "--device", help="of the models: cpu, cuda, cuda:1, mps … (default: cuda if there is one, else cpu)"
    )

    bank = actions.add_parser("bank", help="draw how emotions correlate in the Emotion Bank")
    bank.add_argument(
        "emotions", metavar="EMOTION", nargs="*", help="text or saved emotions (default: all the presets)"
    )
    bank.add_argument("--output", required=True, metavar="PNG", help="the correlations' heat map to write")
    bank.add_argument("--usage-output", metavar="PNG", help="write a heat map of the codes' usage, too")
    bank.add_argument(
        "--space",
        choices=SPACES,
        default=SPACES[0],
        help="compare the codes' usage, the resulting tokens, or the emotions themselves (default: %(default)s)",
    )
    bank.add_argument(
        "--raw", action="store_true", help="compare emotions as they are, not how they differ from neutral"
    )

    classes = actions.add_parser(
        "classes",
        help="find out which emotion each of the classifier's 22 classes is, for the meter and --best-of",
        description="The order of the released classifier's classes is not published. The UNet gets each of the "
        "eight emotions at low noise, the classifier reads its features, and the likeliest order is stored beside the "
        "checkpoint, as emotion_classes.json. Training here stores the order itself; then it is checked.",
    )
    classes.add_argument("--checkpoint", metavar="DIR", help="checkpoint folder (default: the first that is found)")
    classes.add_argument(
        "--portrait", metavar="FILE", help="a calm face that gets the emotions (default: that of the example, demo/)"
    )
    classes.add_argument("--size", type=int, default=512, help="short side in pixels (default: %(default)s)")
    classes.add_argument(
        "--draws", type=int, default=6, metavar="N", help="draws of the noise, 1 to 100 (default: %(default)s)"
    )
    classes.add_argument("--device", help="cpu, cuda, cuda:1, mps … (default: cuda if there is one, else cpu)")

    for action in (show, mix, bank):
        usual = "full, for all of them" if action is bank else "as the emotions say"
        action.add_argument("--bank", choices=MODES, help=f"which codes to attend to (default: {usual})")
        action.add_argument("--top-k", type=int, metavar="K", help="how many codes to attend to; means --bank top-k")
        action.add_argument(
            "--temperature", type=float, metavar="T", help="temperature of the attention; 1 is the published one"
        )
        action.add_argument("--checkpoint", metavar="DIR", help="checkpoint folder (default: the first that is found)")
        action.add_argument(
            "--saved", metavar="DIR", action="append", default=[], help="folder of saved emotions, by name"
        )


def run(args):
    actions = {"show": _show, "mix": _mix, "from-clip": _from_clip, "bank": _bank, "classes": _classes}
    return actions[args.action](args)


def _show(args):
    from ..emotion.parsing import to_text
    from ..emotion.timeline import EmotionTimeline

    (emotion,), priors, checkpoint = _read([args.emotion], args)
    print(to_text(emotion))
    if isinstance(emotion, EmotionTimeline):
        for key in emotion.keys:
            print(f"\nat {key.time:g} s ({key.easing}): {to_text(key.emotion)}")
            _describe(key.emotion, priors)
    else:
        _describe(emotion, priors)
    _print_usage(emotion, checkpoint, args.top)
    return 0


def _mix(args):
    from pathlib import Path

    from ..emotion.files import save_emotion
    from ..emotion.mixing import mix
    from ..emotion.parsing import to_text

    name = _saved_name(args)
    emotions, _, _ = _read(args.emotions, args)
    if len(emotions) > 1 or args.weights:
        mixed = mix(emotions, args.weights, args.method)
    else:
        mixed = emotions[0]
    mixed = mixed.renamed(name, mixed.provenance or to_text(mixed))
    save_emotion(mixed, args.output)
    print(f"Saved {to_text(mixed)} as {Path(args.output).absolute()}")
    return 0


def _from_clip(args):
    from dataclasses import fields
    from pathlib import Path

    from ..checkpoints.finding import resolve_checkpoint
    from ..checkpoints.priors import load_priors
    from ..embedder.options import ClipOptions
    from ..emotion.files import save_emotion
    from ..emotion.options import SUFFIX
    from ..emotion.parsing import to_text
    from ..emotion.timeline import EmotionTimeline
    from ..errors import InputError
    from ..memory import choose_device
    from ..rendering import reading_bar
    from .flags import flag

    if args.output and Path(args.output).suffix != SUFFIX:
        raise InputError(f"--output is {args.output}: give a saved emotion a name that ends in {SUFFIX}.")
    name = _saved_name(args) if args.output else None
    options = ClipOptions(**{field.name: getattr(args, field.name) for field in fields(ClipOptions)})
    clip = options.open_clip(args.clip, written=[("output", args.output)], named=flag)
    checkpoint = resolve_checkpoint(args.checkpoint)
    whisper = checkpoint.folder("whisper") if options.needs_whisper else None
    priors, device = load_priors(checkpoint.folder("emotions")), choose_device(args.device, "--device")
    with reading_bar() as on_progress:
        reading = options.read_clip(clip, priors, whisper, device, on_progress)
    if options.chart:
        print(f"Wrote {Path(options.chart).absolute()}")
    emotion = reading.emotion
    print(reading.text())
    timed = isinstance(emotion, EmotionTimeline)
    print(f"emotion: a timeline of {len(emotion.keys)} emotions" if timed else f"emotion: {to_text(emotion)}")
    if args.output:
        save_emotion(emotion.renamed(name), args.output)
        print(f"Saved as {Path(args.output).absolute()}")
    return 0


def _saved_name(args):
    """What --name says, else the name of the file; InputError before any work for what cannot be one."""
    from pathlib import Path

    from ..emotion.text import one_line
    from ..emotion.value import check_label

    return check_label(args.name, "--name") if args.name else one_line(Path(args.output).stem)


def _bank(args):
    from pathlib import Path

    from ..emotion.heat_map import correlation_image, usage_image
    from ..emotion.options import BankOptions
    from ..emotion.parsing import to_text
    from ..errors import InputError
    from ..media.image import save_png
    from ..model.bank import bank_vectors, correlation, usage

    for path in filter(None, (args.output, args.usage_output)):
        if Path(path).suffix.lower() != ".png":
            raise InputError(f"{path}: the heat map is a PNG file; end its name with .png.")
    emotions, priors, checkpoint = _read(args.emotions, args)
    bank = BankOptions(**_bank_changes(args))  # the same for all, neutral too: emotions are compared, not banks
    emotions = [emotion.with_bank(bank) for emotion in emotions or priors.values()]
    labels = [to_text(emotion) for emotion in emotions]
    needs_model = args.space != "embedding" or args.usage_output
    model = _load_model(checkpoint) if needs_model else None
    if args.raw:
        matrix = correlation(bank_vectors(model, emotions, args.space))
    elif "neutral" in priors:
        vectors = bank_vectors(model, [*emotions, priors["neutral"].with_bank(bank)], args.space)
        matrix = correlation(vectors[:-1], vectors[-1])
    else:
        raise InputError("The priors lack neutral, with which emotions are compared; compare them with --raw.")
    title = f"Correlation of the {args.space}" + ("" if args.raw else ", as it differs from neutral")
    _print_matrix(matrix, labels, title)
    save_png(correlation_image(matrix, labels, title), args.output)
    print(f"Wrote {Path(args.output).absolute()}")
    if args.usage_output:
        shares = usage(model, emotions).mean(1)
        save_png(usage_image(shares, labels, "Usage of the codes, in times of even use"), args.usage_output)
        print(f"Wrote {Path(args.usage_output).absolute()}")
    return 0


def _classes(args):
    from dataclasses import replace
    from pathlib import Path

    import numpy as np
    from tqdm import tqdm

    from ..checkpoints.classes import KNOWN_FROM_TRAINING, TRAINED, load_classifier, load_order, save_order
    from ..checkpoints.finding import resolve_checkpoint
    from ..checkpoints.priors import load_priors
    from ..emotion.options import CLASSES, NAMES
    from ..errors import InputError
    from ..job import LARGEST_SIZE
    from ..media.portrait import load_portrait
    from ..memory import choose_device, choose_dtype
    from ..model.audio import SAMPLES_PER_FRAME
    from ..rendering import load_pipeline
    from ..sampling.classes import FRAMES, measure_scores, order_from_scores
    from ..sampling.meter import Meter

    if not 1 <= args.draws <= 100:
        raise InputError(f"--draws is {args.draws}: give a whole number from 1 to 100.")
    if not 64 <= args.size <= LARGEST_SIZE:
        raise InputError(f"--size is {args.size}: give 64 to {LARGEST_SIZE} pixels.")
    example = Path(__file__).parents[2] / "demo" / "portrait.jpg"
    if args.portrait is None and not example.is_file():
        raise InputError("--portrait is missing: give a picture of a calm face to the camera.")
    device = choose_device(args.device, "--device")
    checkpoint = resolve_checkpoint(args.checkpoint)
    priors = load_priors(checkpoint.folder("emotions"))
    if missing := [name for name in NAMES if name not in priors]:
        raise InputError(f"The priors of {checkpoint.name} lack {', '.join(missing)}: all eight are needed.")
    classifier = load_classifier(checkpoint)
    stored = load_order(checkpoint, classifier)
    portrait = load_portrait(args.portrait or example, short_side=args.size)

    pipeline = load_pipeline(checkpoint, choose_dtype(None, device), device)
    silence = np.zeros(FRAMES * SAMPLES_PER_FRAME, np.float32)
    conditions = pipeline.encode(portrait, silence, priors["neutral"])
    # No sound at all, as where training drops it, so that the emotion alone is given.
    conditions = replace(conditions, audio_tokens=conditions.uncond_audio_tokens.expand(FRAMES, -1, -1))
    meter = Meter(classifier, stored or KNOWN_FROM_TRAINING)
    with tqdm(total=args.draws * len(CLASSES), desc="Reading", disable=None) as bar:
        scores = measure_scores(
            pipeline.unet, pipeline.emotion_model, meter, conditions, priors, args.draws, lambda: bar.update(1)
        )
    try:
        found = order_from_scores(scores)
    except InputError as error:
        raise InputError(f"{checkpoint.file('emo_model')}: {error}") from error
    print("class  emotion    level  how sure (emotion, level)")
    for number, (name, level) in enumerate(found.order.classes):
        print(f"{number:5d}  {name:10s} {level:5d}  {found.order.sureness[number]:8.0%} {found.levels[number]:8.0%}")
    print(f"{found.sureness:.0%} sure on average; shuffled scores fit as well {found.chance:.1%} of the time.")
    if stored is not None and stored.source == TRAINED:
        pairs = list(zip(found.order.classes, stored.classes, strict=True))
        alike = sum(one[0] == other[0] for one, other in pairs), sum(one == other for one, other in pairs)
        print(
            f"The training stored the order itself, and it is kept. What was measured has the same emotion in "
            f"{alike[0]} of {len(pairs)} classes, and the same level too in {alike[1]}."
        )
        return 0
    print(f"Stored as {save_order(found.order, checkpoint.root, classifier)}")
    return 0


def _read(arguments, args):
    """The values of emotions given as text or files, the single emotions among the priors, and the checkpoint."""
    from ..checkpoints.finding import resolve_checkpoint
    from ..checkpoints.priors import load_priors, read_emotion
    from ..emotion.files import EmotionLibrary
    from ..emotion.parsing import resolve
    from ..emotion.timeline import EmotionTimeline

    for argument in arguments:
        read_emotion(argument)
    checkpoint = resolve_checkpoint(args.checkpoint)
    priors = load_priors(checkpoint.folder("emotions"))
    library = EmotionLibrary(priors, args.saved)
    trees = [(read_emotion(argument, library), argument) for argument in arguments]
    changes = _bank_changes(args)
    emotions = [resolve(tree, library, text).with_bank(**changes) for tree, text in trees]
    single = {name: emotion for name, emotion in priors.items() if not isinstance(emotion, EmotionTimeline)}
    return emotions, single, checkpoint


def _bank_changes(args):
    """The bank options that were given: name → value."""
    from ..errors import InputError

    if args.top_k is not None and args.bank not in (None, "top-k"):
        raise InputError(f"--top-k goes with --bank top-k, not with --bank {args.bank}.")
    mode = "top-k" if args.top_k is not None else args.bank
    given = {"mode": mode, "top_k": args.top_k, "temperature": args.temperature}
    return {name: value for name, value in given.items() if value is not None}


def _load_model(checkpoint):
    import torch

    from ..checkpoints.loading import load_part

    return load_part("emo_model", checkpoint.file("emo_model"), dtype=torch.float32)


def _describe(emotion, priors):
    from ..emotion.value import Emotion

    neutral = priors.get("neutral")
    print(f"  norm of the mean       {emotion.mean.norm():.2f}")
    if neutral is not None:
        print(f"  distance from neutral  {(emotion.mean - neutral.mean).norm():.2f}")
        print(f"  nearest presets        {', '.join(_nearest(emotion, priors))}")
    for weight, part in emotion.parts:
        bank = part.bank
        options = bank.mode + (f" {bank.top_k}" if bank.mode == "top-k" else "") + f", temperature {bank.temperature:g}"
        if not isinstance(emotion, Emotion):
            print(f"  part                   {weight:.3g} {part.name or 'unnamed'}")
        print(f"  spread                 {part.deviation.mean():.3g} (mean of its deviation)")
        print(f"  bank                   {options}")
    if emotion.provenance:
        print(f"  comes from             {emotion.provenance}")


def _nearest(emotion, priors, count=3):
    """The presets nearest by distance, with that and the correlation of how both differ from neutral."""
    from ..model.bank import correlation

    neutral = priors["neutral"].mean
    ordered = sorted(priors, key=lambda name: float((priors[name].mean - emotion.mean).norm()))[:count]
    for name in ordered:
        distance = float((priors[name].mean - emotion.mean).norm())
        pair = [emotion.mean.numpy(), priors[name].mean.numpy()]
        alike = correlation(pair, neutral.numpy())[0, 1]
        yield f"{name} (distance {distance:.2f}" + (f", correlation {alike:.2f})" if alike == alike else ")")


def _print_usage(emotion, checkpoint, top):
    import numpy as np

    from ..emotion.parsing import to_text
    from ..emotion.timeline import EmotionTimeline
    from ..model.bank import usage

    emotions = [key.emotion for key in emotion.keys] if isinstance(emotion, EmotionTimeline) else [emotion]
    used = usage(_load_model(checkpoint), emotions)
    for each, heads in zip(emotions, used, strict=True):
        shares = heads.mean(0)
        effective = float(np.exp(-(shares * np.log(np.maximum(shares, 1e-12))).sum()))
        print(f"\nbank usage of {to_text(each)}: as spread as {effective:.1f} of {len(shares)} codes used evenly")
        if checkpoint.untrained:
            print("  (of an untrained checkpoint: it says nothing)")
        print("  code   share  the most and the least of a head")
        for code in shares.argsort()[::-1][: max(top, 0)]:
            if shares[code] > 0:
                print(f"  {code:4d}  {shares[code]:6.2%}  {heads[:, code].max():7.2%} {heads[:, code].min():7.2%}")


def _print_matrix(matrix, labels, title):
    width = max(len(label) for label in labels)
    print(title)
    for number, label in enumerate(labels):
        print(
            f"  {number + 1:2d} {label:{width}s} "
            + " ".join("    -" if v != v else f"{v:5.2f}" for v in matrix[number])
        )
    print("  " + " " * (width + 3) + " " + " ".join(f"{number + 1:5d}" for number in range(len(labels))))
