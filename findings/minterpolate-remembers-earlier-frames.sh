#!/usr/bin/env bash
# FFmpeg's minterpolate (in PyAV 18.1.0): the frame that it makes between two frames depends on the frames before them,
# because its search for motion starts at what it found earlier. So a video cannot be cut in pieces that are interpolated
# side by side. Exits with 0 where that is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from fractions import Fraction

import av
import numpy as np


def between(frames):
    """The frames that minterpolate adds at twice the rate: place in the video → picture."""
    graph = av.filter.Graph()
    height, width, _ = frames[0].shape
    source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=Fraction(1, 10))
    chain = [source, graph.add("minterpolate", "fps=20:mi_mode=mci"), graph.add("format", "rgb24")]
    chain.append(graph.add("buffersink"))
    graph.link_nodes(*chain).configure()
    for number, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 10)
        graph.push(frame)
    graph.push(None)
    made = {}
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return made
        made[round(frame.pts * frame.time_base * 20)] = frame.to_ndarray(format="rgb24").astype(int)


random = np.random.default_rng(0)
blocks = random.integers(0, 255, (24, 12, 12, 3)).astype(np.uint8)
frames = [np.kron(block, np.ones((8, 8, 1), np.uint8)) for block in blocks]
whole, later = between(frames), between(frames[8:])
apart = [place for place in later if place % 2 and place + 16 in whole and (later[place] != whole[place + 16]).any()]
given = [place for place in later if not place % 2 and place + 16 in whole]
if any((later[place] != whole[place + 16]).any() for place in given):
    sys.exit("the given frames are not at the same places: this has changed")
print("PyAV", av.__version__, "libavfilter", av.library_versions["libavfilter"])
print("given frames, all equal:", given)
print("added frames that differ when the 8 frames before are left out:", apart)
sys.exit(0 if apart else "no frame differs: this has changed")
PYTHON
