"""A tiny, untrained checkpoint in the published layout, to try things out with: pictures made with it are noise.

Every model is as small as its class allows, save that tokens stay 1024 wide, as the image embedding of CLIP is, and
that the emotion model's attention has its 8 heads of 128. Weights are seeded by their names, so that the files are the
same each time.
"""

import io
import math
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from .finding import EMOTIONS_FOLDER, SVD_FOLDER, UNTRAINED_FILE, WEIGHTS_FOLDER, WHISPER_FOLDER

CHANNELS = (32, 32, 32, 32)  # of the UNet and the VAE; their group norms have 32 groups
TOKENS = 32
TOKEN_WIDTH = 1024
UNET_CONFIG = {
    "block_out_channels": CHANNELS,
    "layers_per_block": 1,
    "num_attention_heads": (1, 1, 1, 1),  # as `unet_config_from_state_dict` reads levels narrower than a head
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 3 * 32,
    "cross_attention_dim": TOKEN_WIDTH,
}
HIDDEN = 16  # of the projections that make tokens
WHISPER_LAYERS = 4  # audio features are 5 hidden states
WHISPER_WIDTH = 16

_STAGING = ".writing-"
_UNTRAINED_TEXT = """\
The weights in this folder are random: it is a tiny checkpoint to try things out with, written by
`python -m dicetalk tiny`. Pictures made with it are noise. `python -m dicetalk download` fetches the published,
trained weights.
"""


def write_tiny_checkpoint(folder, seed=0, on_step=None) -> None:
    """Write a complete tiny checkpoint, about 40 MB.

    Args:
        folder: made if missing; an earlier tiny checkpoint in it is replaced.
        seed: a whole number from 0 to 2³² - 1; the same seed gives the same bytes.
        on_step: called as ``on_step(name)`` after each of `STEPS` is written.

    Raises:
        InputError: the folder holds other things, or cannot be written.
    """
    folder = Path(os.path.abspath(os.path.expanduser(folder)))
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed}: give a whole number from 0 to {2**32 - 1}.")
    try:
        for left in folder.glob(f"{_STAGING}*"):  # by a run that was ended by force
            shutil.rmtree(left)
        if folder.exists() and os.listdir(folder) and not (folder / UNTRAINED_FILE).is_file():
            raise InputError(f"{folder} holds files that are not of a tiny checkpoint: name a new or an empty folder.")
        folder.mkdir(parents=True, exist_ok=True)
        _move(_written(_write_untrained_note, seed, folder), folder)
        for name, write in STEPS.items():
            _move(_written(write, seed, folder), folder)
            if on_step:
                on_step(name)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror or error}): name another folder.") from None


def _written(write, seed, folder) -> Path:
    """A new folder beside the target with what `write` writes."""
    staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder))
    try:
        write(staging, seed)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return staging


def _move(staging, folder):
    for path in sorted(staging.rglob("*")):
        if path.is_file():
            target = folder / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    shutil.rmtree(staging)


def _write_untrained_note(folder, seed):
    (folder / UNTRAINED_FILE).write_text(_UNTRAINED_TEXT, encoding="utf-8")


def _write_unet(folder, seed):
    from ..model.unet import DiceTalkUNet

    _save_pth(DiceTalkUNet(**UNET_CONFIG), folder, "unet", seed)


def _write_pose_guider(folder, seed):
    from ..model.pose_guider import PoseGuider

    _save_pth(PoseGuider(CHANNELS[0], (8, 8, 16, 16)), folder, "pose_guider", seed)


def _write_audio_linear(folder, seed):
    from ..model.audio import AudioProjection

    module = AudioProjection(width=WHISPER_WIDTH, hidden=HIDDEN, tokens=TOKENS, dim=TOKEN_WIDTH)
    _save_pth(module, folder, "audio_linear", seed)


def _write_emo_model(folder, seed):
    from ..model.emotion import EmotionModel

    module = EmotionModel(
        hidden=HIDDEN, codes=64, tokens=TOKENS, width=TOKEN_WIDTH, classifier_dims=(CHANNELS[-1], 16, 16, 22)
    )
    _save_pth(module, folder, "emo_model", seed)


def small_whisper_config(width, inner):
    """transformers' WhisperConfig of as many layers as DICE-Talk listens through, and a decoder that does nothing.

    Args:
        width: of the states.
        inner: of the encoder's layers between.
    """
    from transformers import WhisperConfig

    return WhisperConfig(
        vocab_size=8,
        d_model=width,
        encoder_layers=WHISPER_LAYERS,
        encoder_attention_heads=2,
        encoder_ffn_dim=inner,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=width,
        max_target_positions=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
    )


def _write_whisper(folder, seed):
    from transformers import WhisperForConditionalGeneration

    config = small_whisper_config(WHISPER_WIDTH, WHISPER_WIDTH)
    tensors = _filled(WhisperForConditionalGeneration(config), seed).state_dict()
    del tensors["proj_out.weight"]  # the token embedding again
    save_pretrained(config, tensors, folder / WHISPER_FOLDER, "model.safetensors")


def _write_vae(folder, seed):
    from diffusers import AutoencoderKLTemporalDecoder

    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * len(CHANNELS),
        layers_per_block=1,
        sample_size=768,
        scaling_factor=0.18215,
    )
    _filled(vae, seed).half().save_pretrained(folder / SVD_FOLDER / "vae", variant="fp16")


def _write_image_encoder(folder, seed):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=224,
        patch_size=32,
        projection_dim=TOKEN_WIDTH,
    )
    tensors = _filled(CLIPVisionModelWithProjection(config), seed).half().state_dict()
    save_pretrained(config, tensors, folder / SVD_FOLDER / "image_encoder", "model.fp16.safetensors")


def write_svd_configs(folder, seed=0):
    from diffusers import EulerDiscreteScheduler
    from transformers import CLIPImageProcessor

    from ..model.settings import SCHEDULER_CONFIG

    EulerDiscreteScheduler(**SCHEDULER_CONFIG).save_pretrained(folder / SVD_FOLDER / "scheduler")
    CLIPImageProcessor().save_pretrained(folder / SVD_FOLDER / "feature_extractor")


def write_emotions(folder, seed=0):
    (folder / EMOTIONS_FOLDER).mkdir()
    for name, mean in emotion_means(seed).items():
        prior = np.empty((), dtype=object)
        prior[()] = {"mu": mean[None]}
        np.save(folder / EMOTIONS_FOLDER / f"{name}.npy", prior, allow_pickle=True)


STEPS = {
    "unet": _write_unet,
    "pose guider": _write_pose_guider,
    "audio projection": _write_audio_linear,
    "emotion model": _write_emo_model,
    "Whisper": _write_whisper,
    "VAE": _write_vae,
    "CLIP vision": _write_image_encoder,
    "scheduler": write_svd_configs,
    "emotions": write_emotions,
}


def emotion_means(seed=0) -> dict[str, np.ndarray]:
    """Name → (256,) float32: eight means with roughly the geometry of the published priors.

    They have norms about 13.7 and correlate pairwise at 0.91 to 0.99, since all share one large component; in what is
    left, anger, disgust and sadness are alike, and fear and surprise.
    """
    negative, startled = {"angry", "disgusted", "sad"}, {"fear", "surprised"}
    names = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")
    random = np.random.RandomState(seed).standard_normal((256, 3 + len(names)))
    directions = np.linalg.qr(random - random.mean(axis=0))[0].T
    common, shared_negative, shared_startled, *own = directions
    means = {}
    for name, direction in zip(names, own):
        if name == "neutral":
            residual = 0
        elif name in negative | startled:
            residual = 3.7 * (shared_negative if name in negative else shared_startled) + 1.5 * direction
        else:
            residual = 4 * direction
        means[name] = (13.1 * common + residual).astype(np.float32)
    return means


def save_pretrained(config, tensors, folder, file_name) -> None:
    """Write a model of transformers: its config.json, and tensors by name as safetensors."""
    from safetensors.torch import save_file

    config.save_pretrained(folder)
    save_file(tensors, folder / file_name, metadata={"format": "pt"})


def _save_pth(module, folder, part, seed):
    (folder / WEIGHTS_FOLDER).mkdir()
    data = io.BytesIO()  # written to a file, the file's name would be part of the content
    torch.save(dict(_filled(module, seed).state_dict()), data)
    (folder / WEIGHTS_FOLDER / f"{part}.pth").write_bytes(data.getvalue())


@torch.no_grad()
def _filled(module, seed):
    """The module with weights that keep activations at their scale, seeded by their names."""
    for name, parameter in module.named_parameters():
        if name.endswith("encoder.embed_positions.weight"):
            continue  # Whisper's are sinusoids
        if name.endswith("mix_factor"):
            parameter.fill_(0.5)
        elif parameter.ndim < 2:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode(), seed))
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(values / math.sqrt(parameter[0].numel()))
    return module.eval()
