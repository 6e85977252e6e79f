"""Fuzz a reader of emotion files with atheris (`pip install -e .[fuzz]`).

    python tests/fuzz/fuzz.py prior|saved|description [-runs=1000000] [-seed=1] [other arguments of libFuzzer's]

Without -runs it goes on until it finds something or is interrupted. What it finds it writes into
tests/fuzz/cases/TARGET/; keep the file there once the reader is fixed: the tests read all of them.
"""

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]


def main():
    import atheris

    if len(sys.argv) < 2 or sys.argv[1] not in ("prior", "saved", "description"):
        sys.exit(__doc__)
    name, *arguments = sys.argv[1:]
    import torch  # noqa: F401  (before the imports are instrumented: it is large, and not what is fuzzed)

    with atheris.instrument_imports(include=["dicetalk.checkpoints.priors", "dicetalk.emotion", "pickletools"]):
        import targets
    cases = HERE / "cases" / name
    cases.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(targets.seeds(name)):
            (Path(corpus) / f"seed {number}").write_bytes(seed)
        # From the seeds' own lengths on: the arrays of a good file leave no room for a shorter one.
        options = ["-max_len=8192", "-len_control=0", "-timeout=10", "-rss_limit_mb=4096", f"-artifact_prefix={cases}/"]
        atheris.Setup([sys.argv[0], *options, *arguments, corpus, str(cases)], targets.TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
