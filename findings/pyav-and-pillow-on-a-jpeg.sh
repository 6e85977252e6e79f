#!/usr/bin/env bash
# PyAV 18.1.0 and Pillow 12.0.0 give different pixels of the same JPEG where its chroma is halved (4:2:0, as cameras
# save it): Pillow's libjpeg interpolates the missing chroma, and so does PyAV to float (gbrpf32le), but to bytes (rgb24)
# it repeats it, whatever interpolation is asked for. At the edges of colours the bytes are tens of steps apart. ComfyUI
# 0.33's Load Image asks PyAV for rgb24 of a JPEG, so it does not see what code sees that reads the file by Pillow.
# Exits with 0 where that is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.2.6 Pillow==12.0.0
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys

import av
import numpy as np
import PIL
from PIL import Image

print("PyAV", av.__version__, "Pillow", PIL.__version__)
down, across = np.mgrid[:128, :128]
picture = np.stack([across, down, (across + down) // 2], -1).astype(np.uint8)
picture[32:96, 32:96] = 200, 30, 40
largest = {}
for name, halved in (("4:4:4", 0), ("4:2:0", 2)):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95, subsampling=halved)
    file.seek(0)
    one = np.asarray(Image.open(file).convert("RGB")).astype(int)
    file.seek(0)
    with av.open(file) as container:
        frame = next(container.decode(video=0))
    asked = {
        "rgb24": frame.to_ndarray(format="rgb24"),
        "rgb24, bicubic": frame.to_ndarray(format="rgb24", interpolation="BICUBIC"),
        "gbrpf32le": 255 * frame.to_ndarray(format="gbrpf32le"),
    }
    largest[name] = {how: round(float(np.abs(one - other).max()), 1) for how, other in asked.items()}
    print(f"{name} ({frame.format.name}): largest difference to Pillow's, of 255:", largest[name])
halved = largest["4:2:0"]
if max(*largest["4:4:4"].values(), halved["gbrpf32le"]) > 4 or min(halved["rgb24"], halved["rgb24, bicubic"]) < 20:
    sys.exit("the two agree on bytes of halved chroma, or differ elsewhere: this has changed")
PYTHON
