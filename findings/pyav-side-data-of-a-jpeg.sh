#!/usr/bin/env bash
# PyAV 18.1.0: reading `side_data` of a frame of any JPEG with EXIF data raises ValueError, since its FFmpeg 8 attaches
# side data of a kind (31, EXIF) that PyAV's own enumeration does not have. `frame.rotation` works, but cannot tell a
# mirrored picture. Exits with 0 where that is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.2.6 Pillow==12.0.0
"$folder/venv/bin/python" - "$folder/photo.jpg" <<'PYTHON'
import sys

import av
from av.sidedata.sidedata import Type
from PIL import Image

exif = Image.Exif()
exif[0x0112] = 5  # orientation: mirrored, and turned
Image.new("RGB", (64, 32), "red").save(sys.argv[1], exif=exif)
with av.open(sys.argv[1]) as container:
    frame = next(container.decode(video=0))
print("PyAV", av.__version__, "libavutil", av.library_versions["libavutil"], "rotation", frame.rotation)
try:
    print("display matrix:", frame.side_data.get(Type.DISPLAYMATRIX))
except ValueError as error:
    print("side_data raises ValueError:", error)
    sys.exit(0)
sys.exit("side_data can be read: this has changed")
PYTHON
