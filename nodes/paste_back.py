"""DICE-Talk Paste Back."""

import comfy.model_management
import comfy.utils
from comfy_api.latest import io

from ..dicetalk.emotion.options import FPS
from ..dicetalk.errors import InputError
from ..dicetalk.media.paste import FEATHER, MAX_FEATHER, paste_back
from .checks import require_finite
from .types import Portrait

_SAME_SHAPE = 0.02


class DiceTalkPasteBack(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkPasteBack",
            display_name="DICE-Talk Paste Back",
            category="DICE-Talk/video",
            description="Puts the frames of a cropped portrait back into the picture that it was cut from, with a "
            "soft edge, so that a face in a large photograph talks in place.",
            search_aliases=["uncrop", "paste face", "stitch", "composite face", "inpaint crop", "talking photo"],
            inputs=[
                io.Image.Input(
                    "frames",
                    tooltip="The decoded frames. Upscaled or interpolated ones are fine: they are resized to the crop.",
                ),
                Portrait.Input("portrait", tooltip="From the DICE-Talk Portrait that the frames were made from."),
                io.Float.Input(
                    "feather",
                    default=FEATHER,
                    min=0.0,
                    max=MAX_FEATHER,
                    step=0.01,
                    tooltip="Width of the soft edge, as a share of the crop's shorter side: 0 is a hard edge.",
                ),
                io.Image.Input(
                    "background",
                    optional=True,
                    tooltip="Frames to paste into instead of the portrait's own picture, of the same size: those of "
                    "another Paste Back, for a second face. The shorter of the two holds its last frame.",
                ),
                io.Float.Input(
                    "fps",
                    optional=True,
                    default=FPS,
                    min=1.0,
                    max=120.0,
                    step=0.5,
                    tooltip="Frames a second of frames, for a portrait of DICE-Talk Re-act: its video's own pictures "
                    "at that rate are the background.",
                ),
            ],
            outputs=[io.Image.Output(display_name="frames", tooltip="The whole picture, once per frame.")],
        )

    @classmethod
    def execute(cls, frames, portrait, feather, background=None, fps=FPS) -> io.NodeOutput:
        wanted = portrait.prepared.image.size
        height, width = frames.shape[1:3]
        if abs(width * wanted[1] / (height * wanted[0]) - 1) > _SAME_SHAPE:
            raise InputError(
                f"frames are {width}×{height} pixels, another shape than the portrait's {wanted[0]}×{wanted[1]}: wire "
                "the frames that were made from this portrait, uncropped."
            )
        if background is not None:
            picture = background
        elif portrait.pictures is not None:
            require_finite(fps=fps)
            picture = portrait.pictures(fps, len(frames)).to(frames.device)
        else:
            picture = portrait.original.to(frames.device)
        if picture.shape[1:3] != portrait.original.shape[1:3]:
            sizes = [f"{image.shape[2]}×{image.shape[1]}" for image in (picture, portrait.original)]
            raise InputError(
                f"background is {sizes[0]} pixels and the picture that the portrait was cut from {sizes[1]}: give "
                "frames of the same size."
            )
        progress = comfy.utils.ProgressBar(max(len(frames), len(picture)))

        def on_piece(done, total):
            comfy.model_management.throw_exception_if_processing_interrupted()
            progress.update_absolute(done, total)

        crop_box = portrait.prepared.crop_box
        return io.NodeOutput(paste_back(frames[..., :3], picture[..., :3], crop_box, feather, on_piece))
