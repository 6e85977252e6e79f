#!/usr/bin/env bash
# PyTorch 2.14.1: torch.load decides by a path's last letters. Where they are ".safetensors" it hands the file to the
# package safetensors, so that a file which torch.save wrote under such a name is an error, and weights_only, mmap and
# what the file holds do not count. PyTorch 2.11 read it. An open file of the same content is still read. Exits with 0
# where that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 safetensors==0.8.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import sys

import torch

print("PyTorch", torch.__version__)
for name in ("weights.pth", "weights.safetensors"):
    torch.save({"weight": torch.arange(3.0)}, name)
    print(f"{name}, by torch.save, begins with {open(name, 'rb').read(4)}")
    for way, source in (("path", name), ("open file", open(name, "rb"))):
        try:
            found = torch.load(source, map_location="cpu", weights_only=True)["weight"].tolist()
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        print(f"  read by its {way}: {found}")
        read = found == [0.0, 1.0, 2.0]
        if read == (name.endswith(".safetensors") and way == "path"):
            sys.exit("this has changed")
PYTHON
