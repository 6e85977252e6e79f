"""DICE-Talk Portrait."""

import logging

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageDraw

from ..dicetalk.errors import InputError
from ..dicetalk.media.faces import CHOICES, box_of_landmarks, parse_face
from ..dicetalk.media.portrait import prepare_portrait
from .checks import in_unit_range, require_picture
from .preview import shown
from .types import EncodedPortrait, Portrait, clip_vision_input, vae_input
from .vae import in_precision

AUTOMATIC = "automatic"
FACES = (AUTOMATIC, *CHOICES, "1", "2", "3", "4", "5", "6")
_LATENT_CHANNELS = 4
_PREVIEW_SIDE = 512
_CROP_COLOUR, _MASK_COLOUR = (255, 255, 255), (86, 180, 233)


class DiceTalkPortrait(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkPortrait",
            display_name="DICE-Talk Portrait",
            category="DICE-Talk/input",
            description="Prepares the image that is to talk: finds the face (or takes a box or a mask), crops and "
            "resizes, and encodes it.",
            search_aliases=["talking head", "avatar", "portrait animation", "face animation", "face"],
            inputs=[
                io.Image.Input("image", tooltip="One picture of one person. Of a batch, the first is used."),
                clip_vision_input(),
                vae_input(),
                io.Int.Input(
                    "short_side",
                    default=512,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="The short side of the video in pixels; both sides become multiples of 64. The model was "
                    "trained at 512.",
                ),
                io.Boolean.Input(
                    "crop", default=False, tooltip="Cut a square around the face; otherwise the whole picture is used."
                ),
                io.Float.Input(
                    "margin",
                    default=0.5,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="With crop: how much is kept on every side of the face, as a share of the face's size.",
                ),
                io.BoundingBox.Input(
                    "bboxes",
                    optional=True,
                    force_input=True,
                    socketless=False,
                    tooltip="Where the face is, for instance from Detect Face Landmarks (MediaPipe). The largest box "
                    "of the first picture is used. Without it and without a mask the face is searched for.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the face may move, of the picture's size: its rectangle is taken. Overrides "
                    "bboxes. One that covers all but the face is inverted.",
                ),
                io.Combo.Input(
                    "face",
                    optional=True,
                    options=list(FACES),
                    default=AUTOMATIC,
                    tooltip="Which of the faces that are found, from the left of the picture; automatic is the "
                    "largest one, and an error where two are equally large. Not used with bboxes or mask.",
                ),
                io.Boolean.Input(
                    "painted_mask",
                    optional=True,
                    default=False,
                    tooltip="Take the mask as it is painted instead of its rectangle. The model was trained with "
                    "rectangles.",
                ),
            ],
            outputs=[
                Portrait.Output(display_name="portrait", tooltip="For DICE-Talk Sampler or Guider."),
                io.Image.Output(display_name="image", tooltip="The portrait as the model sees it."),
                io.Mask.Output(display_name="mask", tooltip="Where the face may move."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image,
        clip_vision,
        vae,
        short_side,
        crop,
        margin,
        bboxes=None,
        mask=None,
        face=AUTOMATIC,
        painted_mask=False,
    ) -> io.NodeOutput:
        image = first_in_colour(image)
        box = chosen_face(mask, bboxes, face)
        if mask is not None:
            mask = mask_for(mask, image)
        picture = to_pil(image)
        prepared = prepare_portrait(picture, box, short_side, crop, margin, mask, painted_mask)
        for text in prepared.notes:
            logging.info("DICE-Talk Portrait: %s", text)
        for text in prepared.warnings:
            logging.warning("DICE-Talk Portrait: %s", text)
        pixels = to_image(prepared.image)
        face_mask = torch.from_numpy(prepared.face_mask)
        portrait = encoded(prepared, image, vae, clip_vision)
        return io.NodeOutput(portrait, pixels, face_mask[None], ui=shown(preview(picture, prepared), cls))


def encoded(prepared, image, vae, clip_vision):
    """The EncodedPortrait of a prepared one, and the IMAGE (1, height, width, 3) that it was cut from."""
    return EncodedPortrait(
        prepared=prepared,
        original=image,
        latent=encode_latent(vae, to_image(prepared.image)),
        clip_embeds=encode_clip(clip_vision, prepared.image),
        face_mask=torch.from_numpy(prepared.face_mask)[None, None],
    )


def chosen_face(mask, bboxes, face):
    """What `prepare_portrait` takes as `face_box`: None where a mask or nothing says it."""
    box = None if mask is not None else largest_box(bboxes)
    return parse_face(face) if mask is None and box is None and face != AUTOMATIC else box


def largest_box(boxes):
    """The face box of the largest box of the first picture, x1, y1, x2, y2; None when nothing is wired.

    Args:
        boxes: {x, y, width, height}, a list of them, or one such list per picture. Those with the label "face" are
            around landmarks, as Detect Face Landmarks (MediaPipe) gives them.

    Raises:
        InputError: boxes are wired but none is there, or they are something else.
    """
    if boxes is None:
        return None
    if isinstance(boxes, list) and boxes and isinstance(boxes[0], list):
        boxes = boxes[0]
    boxes = [boxes] if isinstance(boxes, dict) else boxes
    if not boxes:
        raise InputError("bboxes holds no box for the first picture: no face was detected. Draw a mask instead.")
    try:
        box = max(boxes, key=lambda each: each["width"] * each["height"])
        corners = box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]
        return box_of_landmarks(corners) if box.get("label") == "face" else corners
    except (TypeError, KeyError, AttributeError, OverflowError):
        raise InputError("bboxes does not hold boxes of x, y, width and height: connect a BOUNDING_BOX.") from None


def first_in_colour(image):
    """(1, height, width, 3): the first picture, without alpha, of one channel or of three."""
    require_picture(image, "image")
    image = image[:1, :, :, :3].expand(-1, -1, -1, 3)
    if not torch.isfinite(image).all():
        raise InputError("image holds values that are not finite numbers (NaN or infinity): check the node it is from.")
    return in_unit_range(image, "image")


def to_pil(image):
    return Image.fromarray((image[0].cpu().float().clamp(0, 1).numpy() * 255).round().astype(np.uint8))


def to_image(picture):
    return torch.from_numpy(np.array(picture, dtype=np.float32) / 255)[None]


def preview(picture, prepared):
    """The given picture, darkened outside the crop, with the crop's frame and the face mask's outline."""
    scale = min(1.0, _PREVIEW_SIDE / max(picture.size))
    small = picture.resize([max(1, round(scale * side)) for side in picture.size], Image.Resampling.BOX)
    left, top, right, bottom = (round(scale * edge) for edge in prepared.crop_box)
    size = max(1, right - left), max(1, bottom - top)
    mask = Image.new("L", small.size)
    mask.paste(Image.fromarray(np.uint8(255 * prepared.face_mask)).resize(size, Image.Resampling.BILINEAR), (left, top))
    inside = np.zeros((small.height, small.width), bool)
    inside[top : top + size[1], left : left + size[0]] = True
    face = np.asarray(mask) >= 128
    grown = np.pad(face, 2)
    around = np.logical_or.reduce([np.roll(grown, shift, axis) for shift in (-2, -1, 1, 2) for axis in (0, 1)])
    shade = np.where(face, 1.0, np.where(inside, 0.6, 0.25))[..., None]
    pixels = np.asarray(small) * shade
    pixels[around[2:-2, 2:-2] & ~face] = _MASK_COLOUR
    shown_picture = Image.fromarray(pixels.astype(np.uint8))
    ImageDraw.Draw(shown_picture).rectangle(
        (left, top, left + size[0] - 1, top + size[1] - 1), outline=_CROP_COLOUR, width=2
    )
    return shown_picture


def mask_for(mask, image):
    """The first mask as an array, at the picture's size."""
    if mask.shape[-2:] != image.shape[1:3] or mask.numel() == 0:
        size = f"{mask.shape[-1]}×{mask.shape[-2]}"
        raise InputError(
            f"mask is {size} pixels and the image {image.shape[2]}×{image.shape[1]}: give a mask of the image's size."
        )
    return mask.reshape(-1, *mask.shape[-2:])[0].cpu().float().numpy()


def encode_latent(vae, pixels):
    latent = in_precision(vae, torch.float32).encode(pixels)
    expected = (1, _LATENT_CHANNELS, pixels.shape[1] // 8, pixels.shape[2] // 8)
    if tuple(latent.shape) != expected:
        raise InputError(
            f"vae gave a latent of shape {tuple(latent.shape)} instead of {expected}: it is another model's VAE. "
            "Connect the vae of Load DICE-Talk."
        )
    return latent.float()


def encode_clip(clip_vision, picture):
    """Squashed to the tower's square with Lanczos, as the model was trained."""
    size = clip_vision.image_size
    squashed = to_image(picture.resize((size, size), Image.Resampling.LANCZOS))
    embeds = clip_vision.encode_image(squashed, crop=False)["image_embeds"]
    if embeds is None:
        raise InputError(
            "clip_vision gives no projected embedding: it is another model's. Connect that of Load DICE-Talk."
        )
    return embeds.float()
