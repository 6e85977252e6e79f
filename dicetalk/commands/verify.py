"""Compare this installation's numbers with golden cases computed by the published code."""

HELP = "compare this installation's numbers with the published code's"

EXAMPLES = (
    ("in a clone of the repository", "tests/golden"),
    ("on the GPU", "tests/golden --device cuda"),
)


def add_arguments(parser):
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a folder with golden cases in it or below it")
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, cuda:1, mps … (default: cpu)")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float64", "float32", "float16", "bfloat16"),
        help="precision to compute in; only float32 is judged (default: float32)",
    )


def run(args):
    """Print one row per case. Returns 0 if all pass or none is judged, 1 if any fails or cannot be read."""
    from ..measure.verify import FAILED, NOT_JUDGED, find_cases, verify_case
    from ..memory import choose_device, choose_dtype

    cases = find_cases(args.folders)
    device, dtype = choose_device(args.device, "--device"), choose_dtype(args.dtype)
    widths = [max(len(title), *(len(text) for text in column)) for title, column in _text_columns(cases)]
    row = f"{{:{widths[0]}}}  {{:{widths[1]}}}  {{:>13}}  {{:>9}}  {{}}"
    print(row.format("kind", "name", "largest error", "tolerance", "verdict"), flush=True)
    verdicts = []
    for case in cases:
        result = verify_case(case, device, dtype)
        verdicts.append(result.verdict)
        error = "-" if result.error is None else f"{result.error:.3g}"
        tolerance = "-" if case.tolerance is None else f"{case.tolerance:g}"
        verdict = f"{result.verdict}: {result.reason}" if result.reason else result.verdict
        print(row.format(case.kind, case.name, error, tolerance, verdict), flush=True)
    failed, not_judged = verdicts.count(FAILED), verdicts.count(NOT_JUDGED)
    passed = len(verdicts) - failed - not_judged
    counts = [(passed, "passed"), (failed, "failed"), (not_judged, f"not judged in {args.dtype}")]
    print(", ".join(f"{count} {what}" for count, what in counts if count))
    return 1 if failed else 0


def _text_columns(cases):
    return [("kind", [case.kind for case in cases]), ("name", [case.name for case in cases])]
