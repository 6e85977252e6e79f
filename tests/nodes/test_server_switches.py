"""ComfyUI servers with its switches for models and caches: the quick start makes the frames that it makes without.

--lowvram, --novram, --highvram and --gpu-only exclude --cpu: a server on a GPU alone takes them.
"""

import numpy as np
import pytest
from comfy_server import furnished
from PIL import Image
from project import ROOT
from test_server import quick_start

EXACT = (
    "--use-quad-cross-attention --force-upcast-attention --fp32-text-enc --fp32-unet --fp32-vae --cache-none "
    "--disable-smart-memory --disable-mmap --deterministic --disable-pinned-memory --fast"
)
SMALLER = (
    "--use-split-cross-attention --dont-upcast-attention --fp8_e4m3fn-text-enc --fp8_e4m3fn-unet --bf16-vae "
    "--cache-lru 2 --async-offload --mmap-torch-files --force-non-blocking --fast fp8_matrix_mult autotune"
)


def pictures(server, seed=3):
    """The frames as PNG: in a video, H.264 makes whole grey levels of last bits."""
    graph = quick_start(DiceTalkSampler={"steps": 2, "seed": seed})
    del graph["11"]
    graph["12"] = {"class_type": "SaveImage", "inputs": {"images": ["10", 0], "filename_prefix": "frame"}}
    shown = server.run(graph)["12"]["images"]
    paths = [server.base / each["type"] / each["subfolder"] / each["filename"] for each in shown]
    return np.stack([np.asarray(Image.open(path)) for path in paths]).astype(float)


@pytest.mark.parametrize(
    "switches, least, most", [(EXACT, 0, 0.2), (SMALLER, 0.01, 25)], ids=["exact", "smaller types"]
)
def test_the_quick_start_under_switches(server, comfyui, tiny_checkpoint, tmp_path, switches, least, most):
    """Within so many grey levels, far fewer than another seed gives."""
    expected = pictures(server)
    assert np.abs(pictures(server, seed=4) - expected).mean() > 1.5 * most
    switched = furnished(comfyui, ROOT, tmp_path, tiny_checkpoint, arguments=switches.split())
    try:
        found = pictures(switched)
        assert found.shape == expected.shape == (7, 64, 64, 3)
        off = np.abs(found - expected).mean()
        print(f"{off:.4f} grey levels")
        assert least <= off < most
        assert "Traceback" not in switched.log_text()
    finally:
        switched.stop()
