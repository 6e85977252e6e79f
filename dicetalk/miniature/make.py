"""The whole making of the miniature, stage after stage; what an ended run finished is not done again."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch

from ..checkpoints.finding import EMOTIONS_FOLDER, MINIATURE_FILE, SVD_FOLDER, WHISPER_FOLDER
from ..checkpoints.tiny import emotion_means, save_pretrained, write_emotions, write_svd_configs
from ..emotion.options import CLASSES
from ..errors import InputError, reason
from ..files import write_errors, written_beside
from ..training.dataset import PreparedClips
from ..training.emotion_maps import restart_silent_units
from ..training.loop import train
from ..training.parts import build_objective, new_parts, save_parts, start_from_emotions
from . import drawn_takes, encoders
from .features import encoded, write_clips
from .muon import require_muon
from .vae import new_vae, scale_latents, train_vae

CHANNELS = (64, 96, 96, 96)
_WIDTH = encoders.TOKEN_WIDTH
CONFIG = {
    "unet": {
        "block_out_channels": CHANNELS,
        "layers_per_block": 1,
        "num_attention_heads": tuple(max(1, width // 64) for width in CHANNELS),
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 3 * 32,
        "cross_attention_dim": _WIDTH,
    },
    "pose_guider": {"conditioning_embedding_channels": CHANNELS[0], "block_out_channels": (8, 8, 16, 16)},
    "audio_linear": {"width": encoders.AUDIO_WIDTH, "hidden": 128, "tokens": 32, "dim": _WIDTH},
    "emo_model": {
        "hidden": 128,
        "codes": 64,
        "code_dim": _WIDTH,
        "tokens": 32,
        "width": _WIDTH,
        "classifier_dims": (CHANNELS[-1], 64, 64, len(CLASSES)),
    },
}
_RECORD = "making.json"
_ABOUT = """\
The weights in this folder are a miniature of DICE-Talk, trained on drawn people alone by `python -m dicetalk
miniature`. It knows nothing else. `python -m dicetalk download` fetches the published weights.
"""


def make(output, work, making, precision="bf16", on_progress=None):
    """Make the miniature: a checkpoint folder in the published layout, in half precision.

    Args:
        output: the folder to write.
        work: folder of what is kept on the way (drawn takes, states, features); about 2 GB.
        making: Making.
        precision: "bf16" or "no", of the VAE's training. The method's is float32: on a CPU that was the faster one.
        on_progress: called as ``on_progress(stage, done, total, loss)``; the loss is None where there is none.

    Returns:
        The losses of the method's own two stages, each as of `dicetalk.training.loop.train`.

    Raises:
        InputError: PyTorch is too old, the work is of another making, something cannot be written, or a loss is not
            finite.
    """
    from accelerate import Accelerator

    require_muon()
    output, work = Path(output), Path(work)
    _check_work(work, asdict(making) | {"precision": precision})
    output.mkdir(parents=True, exist_ok=True)

    def report(stage):
        return lambda done, total, loss=None: on_progress and on_progress(stage, done, total, loss)

    chosen = drawn_takes.choose(making.takes, making.people, making.seed)
    drawn_takes.draw(work / "takes", chosen, report("drawn takes"))
    takes = list(drawn_takes.load(work / "takes", len(chosen)))
    audio_encoder = encoders.train_audio_encoder(
        takes,
        making.audio_encoder_steps,
        seed=making.seed,
        state=work / "audio-encoder.safetensors",
        on_step=report("audio encoder"),
    )
    image_encoder = encoders.train_image_encoder(
        takes,
        [take.person.number for take in chosen],
        making.image_encoder_steps,
        seed=making.seed,
        state=work / "image-encoder.safetensors",
        on_step=report("image encoder"),
    )
    vae = new_vae(making.seed)
    train_vae(
        vae,
        takes,
        making.vae_steps,
        making.vae_encoder_steps,
        seed=making.seed,
        state=work / "vae.safetensors",
        precision=torch.bfloat16 if precision == "bf16" else torch.float32,
        on_step=report("VAE"),
    )
    scale_latents(vae, takes)
    for module in (audio_encoder, image_encoder, vae):
        module.half()
    write_companions(output, vae, audio_encoder, image_encoder)
    for module in (audio_encoder, image_encoder, vae):
        module.float()  # to compute with the numbers that were written
    features = encoded(takes, audio_encoder, image_encoder, work / "encoded.npz", report("features"))
    write_clips(work / "clips", chosen, takes, features, vae, report("latents"))
    parts = new_parts(CONFIG, making.seed)
    priors = {name: torch.from_numpy(mean) for name, mean in emotion_means().items()}
    start_from_emotions(parts["emo_model"], priors, making.seed)
    histories = []
    for options, told in zip(making.stages(), map(report, ("the method", "the method, by the full bank"))):
        if histories:
            restart_silent_units(parts["emo_model"], priors, seed=making.seed)
        objective = build_objective(parts, options)
        history = train(
            objective,
            PreparedClips(work / "clips", options.frames),
            priors,
            Accelerator(cpu=True),
            work / f"training-{options.bank}.safetensors",
            save_every=50,
            resume=True,
            on_step=lambda done, total, losses, told=told: told(done, total, losses[1]),
        )
        histories.append(history)
    save_parts(objective.half(), output)
    (output / MINIATURE_FILE).write_text(_ABOUT, encoding="utf-8")  # last: what has it is whole
    return histories


def _check_work(work, making):
    """InputError where the work folder is of a making with other numbers; more `full_steps` may follow."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / _RECORD
    now = {name: value for name, value in making.items() if name not in ("full_steps", "cool_down")}
    if not path.exists():
        if any(work.iterdir()):
            raise InputError(f"{work} holds other things than the work on a miniature: name a new or an empty folder.")
        with written_beside(path) as part, write_errors(path):
            part.write_text(json.dumps(now), encoding="utf-8")
        return
    try:
        was = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in now if was.get(name) != now[name]]
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({reason(error)}): name another work folder.") from error
    if differing:
        name = differing[0]
        raise InputError(
            f"{work} is the work on another miniature: {name} was {was.get(name)!r}, and is {now[name]!r}. Give the "
            "same numbers, or another work folder."
        )


def write_companions(folder, vae, audio_encoder, image_encoder) -> None:
    """Write what a checkpoint folder has beside the method's own four parts, in the precision of the modules."""
    for name in (SVD_FOLDER, WHISPER_FOLDER, EMOTIONS_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)
    svd = folder / SVD_FOLDER
    vae.save_pretrained(svd / "vae", variant="fp16")
    tensors = image_encoder.state_dict()
    save_pretrained(image_encoder.config, tensors, svd / "image_encoder", "model.fp16.safetensors")
    tensors = {f"model.encoder.{name}": tensor for name, tensor in audio_encoder.state_dict().items()}
    save_pretrained(encoders.audio_config(), tensors, folder / WHISPER_FOLDER, "model.safetensors")
    write_svd_configs(folder)
    write_emotions(folder)
