"""Measure one window step (three branches of frames, random weights of the released size) beside diffusers' stock
Stable Video Diffusion UNet at the same size, in the same run: time, memory of activations, operations, and what that
means for a video. Or something else instead: what each choice below that says so measures or counts; one at a time."""

HELP = "measure time and memory: a window step beside the stock SVD UNet, or decoding, a clip, a training step and more"

EXAMPLES = (
    ("on the GPU, with torch.compile", "--device cuda --dtype float16 --compile"),
    ("on a CPU, smaller", "--device cpu --size 256 --frames 8"),
    ("operations and memory from shapes, nothing is computed", "--repeats 0"),
    ("memory of a training step from shapes", "--train --dtype bfloat16"),
    ("16 short clips by one command and by 16", "--batch"),
    ("pictures that each choice of speed leaves out", "--speed"),
    ("where the time goes, by kind of operation", "--profile --device cuda --dtype float16"),
    ("a whole clip, stage by stage", "--clip"),
    ("beside the build of an older revision", "--compare HEAD~1 --device cuda --dtype float16"),
    ("keep the times, and see what became slower", "--history bench.jsonl"),
)


def add_arguments(parser):
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps … (default: CUDA if there is one, else the CPU)")
    parser.add_argument("--dtype", help="float32, float16 or bfloat16 (default: float16 on CUDA, float32 elsewhere)")
    parser.add_argument(
        "--size",
        metavar="N or WxH",
        help="pixels, multiples of 64 (default: 512, or 64 with --decode; on a CPU, use 256: 512 takes minutes)",
    )
    parser.add_argument("--frames", help="frames in the window (default: 25, as published; with --decode 80)")
    parser.add_argument(
        "--repeats",
        default="3",
        help="timed runs of each network after a warm-up run; the median is printed; 0 computes nothing and only "
        "counts operations and memory from shapes (default: %(default)s)",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--traffic",
        action="store_true",
        help="count instead the kernels of a step, and the bytes that they move, by kind of operation; on any machine",
    )
    instead.add_argument(
        "--train",
        action="store_true",
        help="count instead the memory of a training step of one clip, by what trains; on any machine",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="time torch.compile's versions too: of the whole network, and of its blocks",
    )
    instead.add_argument(
        "--decode",
        action="store_true",
        help="measure instead what decoding in chunks changes, by the frames of context that are decoded with them",
    )
    instead.add_argument(
        "--batch",
        action="store_true",
        help="measure instead 16 short clips of 4 portraits by one `batch`, and by 16 `generate`: tiny network, CPU",
    )
    instead.add_argument(
        "--speed",
        action="store_true",
        help="count instead the pictures that go through the UNet, by what sampling leaves out; on any machine",
    )
    instead.add_argument(
        "--profile",
        action="store_true",
        help="print instead milliseconds, operations and bytes of a step and of decoding, by kind of operation",
    )
    instead.add_argument(
        "--clip",
        action="store_true",
        help="make instead a video of the speech in demo/, and print how long each stage works; needs a clone",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="with --clip: folder of the weights, or its name (default: the tiny network, which is made for it)",
    )
    instead.add_argument(
        "--compare",
        metavar="REVISION",
        help="time instead a step of this build and of another revision of the clone, by turns",
    )
    parser.add_argument(
        "--history",
        metavar="FILE",
        help="append what was measured to this file, a JSON line a run, and say which times differ from the last run "
        "of the same kind",
    )
    parser.add_argument("--tiny", action="store_true", help="a tiny network, to try this command out with")
    parser.add_argument("--json", action="store_true", help="print JSON: times in seconds, sizes in bytes")


def run(args):
    """Print the table or the JSON. Returns 0."""
    import sys

    if args.batch:
        return _batch(args)
    if args.speed:
        return _speed(args)
    if args.clip:
        return _clip(args)

    size = read_size(args.size or ("64" if args.decode else "512"))
    frames = _whole_number(args.frames or ("80" if args.decode else "25"), "--frames", 1, "25")
    repeats = _whole_number(args.repeats, "--repeats", 0, "3")

    from tqdm import tqdm

    from ..errors import InputError
    from ..job import DTYPES
    from ..measure.bench import bench
    from ..measure.first_step import first_steps, share_of_gain
    from ..memory import choose_device, choose_dtype, release
    from ..sampling.counting import Workload

    if args.dtype is not None and args.dtype not in DTYPES:
        raise InputError(f"--dtype {args.dtype}: choose one of {', '.join(DTYPES)}.")
    device = choose_device(args.device, "--device")
    if args.decode:
        return _borders(args, size, frames, device, choose_dtype(args.dtype, device))
    workload = Workload(*size, frames, choose_dtype(args.dtype, device), args.tiny)
    if args.traffic:
        return _traffic(args, workload)
    if args.train:
        return _train(args, workload)
    if args.profile:
        return _profile(args, workload, device)
    if args.compare:
        return _compare(args, workload, device, repeats)
    state = {}

    def on_counted(counts, rate):
        if rate:
            flops = sum(each.flops for each in counts.values())
            state["seconds"] = seconds = 2 * flops * (1 + repeats) / rate  # at half of the matrix rate
            tqdm.write(f"{(2 + 2 * args.compile) * (1 + repeats)} runs, some {_duration(seconds)} in all", sys.stderr)

    runs = (2 + 2 * args.compile) * (1 + repeats) if repeats else 0
    try:
        with tqdm(total=runs, desc="bench", unit="run", disable=None if runs else True) as progress:
            report = bench(workload, device, repeats, args.compile, on_counted, progress.update)
        if args.compile and repeats:
            release(device)
            report |= {"first_step": first_steps(workload, device), "share_of_gain": share_of_gain(report["networks"])}
    except KeyboardInterrupt:
        if "seconds" in state:
            print(_smaller(workload, state["seconds"]), file=sys.stderr)
        raise
    return _finish(args, "step", report, table)


def _finish(args, kind, report, text):
    """Print a report, as JSON or by `text`, and remember it if asked; returns 0."""
    import json
    import sys

    print(json.dumps(report, indent=2, allow_nan=False) if args.json else text(report))
    if args.history:
        from ..measure.history import remember

        left_out = ("command", "json", "history")
        options = {name: value for name, value in vars(args).items() if name not in left_out and value}
        print("\n".join(remember(args.history, kind, options, report)), file=sys.stderr)
    return 0


def _traffic(args, workload):
    from dataclasses import asdict

    from ..measure.traffic import count_both, table

    counts = count_both(workload)
    report = {kind: asdict(traffic) for kind, traffic in counts.items()}
    return _finish(args, "traffic", report, lambda report: table(workload, counts))


def _train(args, workload):
    from ..measure.training import rows, table

    return _finish(args, "train", rows(workload), table)


def _speed(args):
    from ..measure.speed import rows, table

    return _finish(args, "speed", rows(), table)


def _profile(args, workload, device):
    from ..measure.profile import profile_decoding, profile_step, table

    titles = {"step": "One window step, three branches", "decoding": "Decoding"}
    report = {"step": profile_step(workload, device), "decoding": profile_decoding(workload, device)}
    report["device"] = report["step"]["device"]
    return _finish(
        args, "profile", report, lambda report: "\n\n".join(table(titles[name], report[name]) for name in titles)
    )


def _compare(args, workload, device, repeats):
    from tqdm import tqdm

    from ..measure.profile import COMPARED_RUNS, compare

    with tqdm(total=2 * COMPARED_RUNS, desc="bench", unit="process", disable=None) as progress:
        report = compare(args.compare, workload, device, repeats, progress.update)

    def text(report):
        this, other = (report[name]["seconds"] for name in ("this", "other"))
        return (
            f"A window step at {report['width']}×{report['height']} × {report['frames']} frames, {report['dtype']}, "
            f"{report['device']}\nthis build {this:.4g} s, {args.compare} {other:.4g} s: {report['ratio']:.3f} ×"
        )

    return _finish(args, "compare", report, text)


def _clip(args):
    import sys
    import tempfile
    from pathlib import Path

    from ..checkpoints.tiny import write_tiny_checkpoint
    from ..errors import InputError
    from ..measure.clip import measure_clip, table

    demo = Path(__file__).resolve().parents[2] / "demo"
    if not demo.is_dir():
        raise InputError("--clip needs the examples in demo/, which a clone has and an installed package has not.")
    values = {"portrait": str(demo / "portrait.jpg"), "audio": str(demo / "speech.flac"), "emotion": "happy"}
    values |= {"device": args.device, "dtype": args.dtype, "size": args.size, "checkpoint": args.checkpoint}
    with tempfile.TemporaryDirectory() as folder:
        if args.checkpoint is None:
            write_tiny_checkpoint(folder)
            values |= {"checkpoint": folder, "steps": 5, "size": args.size or 192}
        report = measure_clip(values, say=lambda text: print(text, file=sys.stderr))
    return _finish(args, "clip", report, table)


def _batch(args):
    from tqdm import tqdm

    from ..batch.bench import CLIPS, bench_batch

    with tqdm(total=CLIPS + 1, desc="bench", unit="command", disable=None) as progress:
        report = bench_batch(on_run=progress.update)
    return _finish(args, "batch", report, _batch_table)


def _batch_table(report):
    from ..batch.bench import TARGETS

    lines = [f"{report['clips']} clips of {report['portraits']} portraits, tiny network on the CPU"]
    lines.append(f"{'':16}{'one batch':>12}{'generate':>12}{'ratio':>8}{'target':>8}")
    for name, unit, scale in (("wall", "s", 1), ("cpu", "s", 1), ("memory", "MB", 1e6)):
        one, many = (report[kind][name] / scale for kind in ("batch", "single"))
        lines.append(f"{name + ', ' + unit:16}{one:12.1f}{many:12.1f}{report['ratios'][name]:8.2f}{TARGETS[name]:8.2f}")
    return "\n".join(lines)


def _borders(args, size, frames, device, dtype):
    from tqdm import tqdm

    from ..measure.borders import CHUNKS, CONTEXTS, measure_borders

    decodings = 1 + len(CHUNKS) * len(CONTEXTS)
    with tqdm(total=decodings, desc="bench", unit="decoding", disable=None) as progress:
        rows = measure_borders(*size, frames, dtype, device, args.tiny, progress.update)
    network = "tiny network" if args.tiny else "released size"
    title = (
        f"Difference to decoding {frames} frames of {size[0]}×{size[1]} at once, in 1/255; {network}, random weights"
    )
    return _finish(args, "decode", rows, lambda rows: _borders_table(title, rows))


def _borders_table(title, rows):
    from ..measure.chunks import table as chunks

    lines = [chunks(), "", title, "chunk  context   mean  worst frame"]
    for row in rows:
        mark = "  default" if row["chosen"] else ""
        lines.append(f"{row['chunk']:5}  {row['context']:7}  {row['mean']:5.2f}  {row['worst_frame']:11.2f}{mark}")
    return "\n".join(lines)


def _smaller(workload, seconds):
    from ..measure.bench import what_fits

    share = min(0.5, 60 / seconds)
    return f"{_duration(seconds)} were expected. For at most {share:.0%} of the work: {what_fits(workload, share)}."


def read_size(text):
    """ "512" or "512x768" → width and height; InputError for other text."""
    from ..errors import InputError

    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) >= 64 and int(side) % 64 == 0 for side in sides):
        raise InputError(f"--size {text}: give multiples of 64 such as 512 or 512x768.")
    return int(sides[0]), int(sides[-1])


def _whole_number(text, option, least, example):
    from ..errors import InputError

    if not text.isdecimal() or int(text) < least:
        raise InputError(f"{option} {text}: give a whole number from {least} on, such as {example}.")
    return int(text)


def _duration(seconds):
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.0f} hours"


TITLES = {
    **{"stock": "stock SVD", "dicetalk": "DICE-Talk"},
    **{"dicetalk_compiled": "compiled", "dicetalk_regions": "blocks compiled"},
}


def table(report) -> str:
    """The report as text for people: one row per quantity, one column per network, and the ratios to stock."""
    kinds = list(report["networks"])
    rows = [[""] + [TITLES[kind] for kind in kinds] + [f"{TITLES[kind]} / stock" for kind in kinds[1:]]]
    clip = f"{report['networks']['stock']['clip_seconds']} s clip, {report['steps']} steps, s"
    quantities = [
        ("time of the step, s", "seconds", 1, "seconds"),
        ("operations, TFLOP", "flops", 1e12, "flops"),
        ("share of the matrix rate", "matrix_rate_share", 1, None),
        ("activations at peak, measured, GB", "peak_activation_bytes", 1e9, "peak_activation_bytes"),
        ("activations at peak, counted, GB", "counted_activation_bytes", 1e9, "counted_activation_bytes"),
        ("seconds per second of video", "seconds_per_video_second", 1, None),
        (clip, "seconds_per_clip", 1, None),
    ]
    for title, name, unit, ratio in quantities:
        values = [report["networks"][kind][name] for kind in kinds]
        if any(value is not None for value in values):
            ratios = [report["ratios"][kind][ratio] if ratio else None for kind in kinds[1:]]
            cells = [_cell(value, unit) for value in values]
            if name == "matrix_rate_share":
                cells = ["-" if value is None else f"{value:.0%}" for value in values]
            rows.append([title] + cells + ["" if each is None else f"{each:.3f}" for each in ratios])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_heading(report), ""]
    for title, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:])]
        lines.append("  ".join([title.ljust(widths[0])] + padded).rstrip())
    return "\n".join(lines + [""] + _notes(report))


def _cell(value, unit):
    if value is None:
        return "-"
    value /= unit
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value >= 0.001 or value == 0 else f"{value:.1e}"


def _heading(report):
    size = f"{report['width']}×{report['height']}"
    network = " (tiny network)" if report["tiny"] else ""
    return (
        f"One window step: {report['branches']} branches × {report['frames']} frames at {size}, {report['dtype']}"
        f"{network}, {report['device']}, PyTorch {report['torch']}"
    )


def _notes(report):
    notes = [f"Weights: {report['weight_bytes'] / 1e9:.3g} GB, not part of the activations."]
    if report["repeats"]:
        rate = _cell(report["matrix_flops_per_second"], 1e12)
        notes.insert(0, f"Times: medians of {report['repeats']} runs by turns, warmed. Matrix rate: {rate} TFLOP/s.")
    notes.append(
        "Counted activations: the most bytes of tensors that live at one time, from their shapes; without kernels' "
        "scratch memory."
    )
    if "first_step" in report:
        from ..measure.first_step import table

        notes += ["", table(report["first_step"], report["share_of_gain"])]
    return notes
