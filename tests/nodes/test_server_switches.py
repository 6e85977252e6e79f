"""ComfyUI servers with its switches for models and caches: the quick start makes the video that it makes without.

--lowvram, --novram, --highvram and --gpu-only exclude --cpu: a server on a GPU alone takes them.
"""

import numpy as np
import pytest
from comfy_server import furnished
from project import ROOT
from test_server import quick_start, read_video

EXACT = (
    "--use-quad-cross-attention --force-upcast-attention --fp32-text-enc --fp32-unet --fp32-vae --cache-none "
    "--disable-smart-memory --disable-mmap --deterministic --disable-pinned-memory --fast"
)
SMALLER = (
    "--use-split-cross-attention --dont-upcast-attention --fp8_e4m3fn-text-enc --fp8_e4m3fn-unet --bf16-vae "
    "--cache-lru 2 --async-offload --mmap-torch-files --force-non-blocking --fast fp8_matrix_mult autotune"
)


def video(server):
    outputs = server.run(quick_start(DiceTalkSampler={"steps": 2, "seed": 3}))
    return np.stack(read_video(server.saved_file({"12": outputs["12"]}))[0]).astype(float)


@pytest.mark.parametrize("switches, least, most", [(EXACT, 0, 3), (SMALLER, 0.01, 25)], ids=["exact", "smaller types"])
def test_the_quick_start_under_switches(server, comfyui, tiny_checkpoint, tmp_path, switches, least, most):
    """Within some grey levels, which is what H.264 makes of other last bits."""
    expected = video(server)
    switched = furnished(comfyui, ROOT, tmp_path, tiny_checkpoint, arguments=switches.split())
    try:
        frames = video(switched)
        assert frames.shape == expected.shape
        assert least <= np.abs(frames - expected).mean() < most
        assert "Traceback" not in switched.log_text()
    finally:
        switched.stop()
