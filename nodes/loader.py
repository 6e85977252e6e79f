"""Load DICE-Talk."""

import logging
from dataclasses import replace
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ..dicetalk.checkpoints.finding import MINIATURE_SIZE, find_checkpoints, miniature_folder, resolve_checkpoint
from ..dicetalk.checkpoints.student import STUDENT_FILE
from ..dicetalk.checkpoints.svd_files import SVD_FILES
from .checks import digest
from .types import DiceTalk

FOLDER = "dicetalk"
_NONE = "(no checkpoint found)"
_WEIGHT_TYPES = {
    "default": {},
    "fp32": {"dtype": torch.float32},
    "fp16": {"dtype": torch.float16},
    "bf16": {"dtype": torch.bfloat16},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True},
}


def register_folder():
    """Make `models/dicetalk` known to ComfyUI, so that extra_model_paths.yaml can name more such folders."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER), is_default=True)


def checkpoint_roots():
    """The folders to look for checkpoints in: ComfyUI's, then those of older ports, at last the pack's miniature."""
    roots = [Path(root) for root in folder_paths.get_folder_paths(FOLDER)]
    return [*roots, Path(folder_paths.models_dir) / "dice_talk", miniature_folder()]


def svd_file():
    """Stable Video Diffusion's file in ComfyUI's folders of checkpoints, as a Path; None without one."""
    paths = (folder_paths.get_full_path("checkpoints", name) for name in SVD_FILES)
    return next((Path(path) for path in paths if path), None)


def checkpoints():
    """Name → checkpoint. One without a Stable Video Diffusion of its own has `svd_file`."""
    found, file = find_checkpoints(checkpoint_roots()), svd_file()
    return {name: replace(checkpoint, svd=checkpoint.svd or file) for name, checkpoint in found.items()}


class DiceTalkLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        names = list(find_checkpoints(checkpoint_roots())) or [_NONE]
        return io.Schema(
            node_id="DiceTalkLoader",
            display_name="Load DICE-Talk",
            category="DICE-Talk/loaders",
            description="Loads a DICE-Talk checkpoint: the MODEL, and the parts for speech, face mask and emotion.",
            search_aliases=["dice talk", "talking head", "lip sync", "avatar", "portrait animation", "emotion"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=names,
                    tooltip="A folder in models/dicetalk that holds DICE-Talk/unet.pth (or .safetensors), its other "
                    "parts, whisper-tiny and emotions. The Download button in the node fetches what is missing.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(_WEIGHT_TYPES),
                    default="default",
                    advanced=True,
                    tooltip="Weight type of the UNet. default lets ComfyUI choose; fp8 halves the "
                    "memory of fp16 at some loss; fp8_e4m3fn_fast also multiplies in fp8 where the GPU can.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The denoiser, for DICE-Talk Sampler or DICE-Talk Guider."),
                DiceTalk.Output(display_name="dicetalk", tooltip="Speech, pose and emotion parts of the checkpoint."),
                io.ClipVision.Output(
                    display_name="clip_vision",
                    tooltip="Stable Video Diffusion's CLIP vision tower, for DICE-Talk Portrait, from the checkpoint's "
                    "folder or svd_xt.safetensors. Loaded when it is used.",
                ),
                io.Vae.Output(
                    display_name="vae",
                    tooltip="Stable Video Diffusion's VAE, for DICE-Talk Portrait, DICE-Talk Video, VAE Decode and VAE "
                    "Encode, from the checkpoint's folder or svd_xt.safetensors. Loaded when it is used.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, checkpoint):
        # Looked up again, since files may have come after ComfyUI started. None is a wired input, not known yet.
        names = checkpoints()
        if checkpoint is None or checkpoint in list(names):
            return True
        missing = f"There is no DICE-Talk checkpoint {checkpoint!r} in {checkpoint_roots()[0]}"
        named = [f"{name}, which knows drawn people only" if each.miniature else name for name, each in names.items()]
        others = f"choose {' or '.join(named)}" if names else "there is none at all"
        return (
            f"{missing}: {others}; or put DICE-Talk/, whisper-tiny/ and emotions/ there, click Download in the node, "
            "or run `python -m dicetalk download`."
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint, **_):
        """Differs once a file of the checkpoint came, went or changed, as after a download."""
        found = checkpoints().get(checkpoint)
        if found is None:
            return ""
        svd = [found.svd, found.svd / "vae", found.svd / "image_encoder"] if found.svd else []
        folders = [folder for folder in (found.whisper, found.emotions, *svd) if folder and folder.is_dir()]
        beside = [path.parent / STUDENT_FILE for path in found.files.values()]
        files = [
            *found.files.values(),
            *beside,
            *svd,
            *(path for folder in folders for path in sorted(folder.iterdir())),
        ]
        stats = [(str(path), path.stat()) for path in files if path.is_file()]
        return digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])

    @classmethod
    def execute(cls, checkpoint, weight_dtype) -> io.NodeOutput:
        from .parts import DiceTalkParts
        from .sampling.model import load_unet  # diffusers and transformers are slow to import: only when first used
        from .svd import CheckpointClipVision, CheckpointVae

        names = checkpoints()
        found = names.get(checkpoint) or resolve_checkpoint(checkpoint, checkpoint_roots())
        if found.miniature:
            logging.warning(
                f"Load DICE-Talk: {checkpoint} is the miniature, which knows drawn people only, in pictures of "
                f"{MINIATURE_SIZE} pixels."
            )
        return io.NodeOutput(
            load_unet(found.file("unet"), _WEIGHT_TYPES[weight_dtype]),
            DiceTalkParts(found),
            CheckpointClipVision(found),
            CheckpointVae(found),
        )
