#!/usr/bin/env bash
# PyAV 18.1.0 with its own FFmpeg: a WAV of WAVE_FORMAT_EXTENSIBLE may hold samples of fewer valid bits than their
# container has, such as 24 in 32 or 16 in 24. The first is opened as another codec, whose samples are not the file's; the
# second gives more samples than the file has. Nothing is raised or logged. Exits with 0 where that is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import struct
import sys

import av
import numpy as np

PCM = bytes.fromhex("0100000000001000800000aa00389b71")  # the subformat of whole numbers
print("PyAV", av.__version__, "libavcodec", ".".join(map(str, av.library_versions["libavcodec"])))


def decoded(valid, bits, samples):
    """What PyAV reads of samples in -1 to 1, written as whole numbers at the top of their container."""
    size, count = bits // 8, len(samples)
    whole = np.round(samples * (2 ** (valid - 1) - 1)).astype(np.int64) << (bits - valid)
    content = b"".join(int(each).to_bytes(size, "little", signed=True) for each in whole)
    head = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 16000, 16000 * size, size, bits, 22, valid, 4) + PCM
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", len(content)) + content
    name = f"{valid}in{bits}.wav"
    with open(name, "wb") as file:
        file.write(b"RIFF" + struct.pack("<I", len(body)) + body)
    with av.open(name) as container:
        codec = container.streams.audio[0].codec_context.name
        read = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    scale = 1 if read.dtype.kind == "f" else 2.0 ** (8 * read.itemsize - 1)
    right = len(read) == count and np.abs(read / scale - samples).max() < 1e-3
    print(f"{valid} bits in {bits}: codec {codec}, {len(read)} of {count} samples, {'right' if right else 'wrong'}")
    return right


sine = 0.5 * np.sin(2 * np.pi * 220 * np.arange(16000) / 16000)
with np.errstate(all="ignore"):
    results = [decoded(*bits, sine) for bits in ((16, 16), (24, 24), (32, 32), (24, 32), (16, 32), (16, 24))]
if results != [True, True, True, False, False, False]:
    sys.exit("this has changed")
PYTHON
