"""Where Stable Video Diffusion is when it is one file, as ComfyUI has it. Light: no tensor is read."""

from pathlib import Path

SVD_FILES = ("svd_xt.safetensors", "svd_xt_1_1.safetensors", "svd_xt_1.1.safetensors", "svd.safetensors")


def find_svd_file(folders):
    """The first file of `SVD_FILES` in some folders, in their order; None where there is none."""
    paths = (Path(folder) / name for folder in folders for name in SVD_FILES)
    return next((path for path in paths if path.is_file()), None)
