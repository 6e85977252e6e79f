"""What `bench` measures and counts, one after the other but for --batch: python tests/tools/all_numbers.py

On a CUDA GPU with the released size in half precision, which was not tried yet. Without a GPU, or with --tiny, the tiny
network on the CPU takes its place, to see that all of them run: its times say nothing. --history FILE keeps the
numbers. Further rows, with ComfyUI and in cards with less memory, are those of tests/tools/gpu.py.
"""

import argparse
import subprocess
import sys
import time

import _paths  # noqa: F401
import torch
from project import ROOT

ON_GPU = ["--device", "cuda", "--dtype", "float16"]
ON_CPU = ["--device", "cpu", "--tiny", "--size", "64", "--frames", "2"]
COUNTED = ["--traffic", "--dtype", "float16", "--device", "cpu"]


def commands(gpu: bool, revision: str | None):
    """(title, arguments of `bench`)."""
    where, repeats = (ON_GPU, "5") if gpu else (ON_CPU, "1")
    yield "pictures by what sampling leaves out", ["--speed"]
    yield "kernels and bytes of a window step, counted", COUNTED if gpu else [*COUNTED, "--tiny", "--size", "64"]
    yield "milliseconds by kind of operation", ["--profile", *where]
    yield "a window step beside stock SVD", ["--repeats", repeats, *where, *(["--compile"] if gpu else [])]
    yield (
        "frames decoded per frame kept, and borders",
        ["--decode", *(ON_GPU if gpu else ["--tiny", "--device", "cpu"])],
    )
    yield "a clip, stage by stage", ["--clip", "--device", "cuda" if gpu else "cpu"]
    if revision:
        yield f"beside {revision}", ["--compare", revision, "--repeats", repeats, *where]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="the tiny network on the CPU")
    parser.add_argument("--compare", metavar="REVISION", help="time a step of this revision too")
    parser.add_argument("--history", metavar="FILE", help="as bench's")
    args = parser.parse_args()
    gpu = torch.cuda.is_available() and not args.tiny
    begun, failed = time.monotonic(), []
    for title, options in commands(gpu, args.compare):
        options += ["--history", args.history] if args.history else []
        print(f"\n## {title}\npython -m dicetalk bench {' '.join(options)}\n", flush=True)
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "dicetalk", "bench", *options], cwd=ROOT)
        failed += [title] * (done.returncode != 0)
        print(f"({time.monotonic() - start:.0f} s)", flush=True)
    print(f"\n{time.monotonic() - begun:.0f} s in all; failed: {', '.join(failed) or 'none'}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
