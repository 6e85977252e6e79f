"""The whole making of the miniature, stage after stage; what an ended run finished is not done again."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoints.finding import EMOTIONS_FOLDER, MINIATURE_FILE, SVD_FOLDER, WHISPER_FOLDER
from ..checkpoints.tiny import emotion_means, write_emotions, write_svd_configs
from ..training.dataset import PreparedClips
from ..training.loop import train
from ..training.options import TrainingOptions
from ..training.parts import build_objective, new_parts, save_parts
from . import towers, world
from .autoencoder import new_autoencoder, scale_latents, train_autoencoder
from .features import towers_features, write_clips

CHANNELS = (64, 96, 96, 96)
_WIDTH = towers.TOKEN_WIDTH
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
    "audio_linear": {"width": towers.EAR_WIDTH, "hidden": 128, "tokens": 32, "dim": _WIDTH},
    "emo_model": {
        "hidden": 128,
        "codes": 64,
        "code_dim": _WIDTH,
        "tokens": 32,
        "width": _WIDTH,
        "classifier_dims": (CHANNELS[-1], 64, 64, 22),
    },
}


@dataclass(frozen=True)
class Making:
    """How the miniature is made.

    Attributes:
        takes, people: drawn takes to learn from, and the people in them.
        autoencoder_steps, encoder_steps: of 4 pictures; after the second number the VAE's encoder stays as it is.
        ear_steps, eye_steps: of 30 s; of 2 pictures of 32 people.
        steps, batch, rate: of the method's own training, see `TrainingOptions`.
        seed: of everything.
    """

    takes: int = 1600
    people: int = 400
    autoencoder_steps: int = 4000
    encoder_steps: int = 1700
    ear_steps: int = 400
    eye_steps: int = 400
    steps: int = 1500
    batch: int = 4
    rate: float = 1e-3
    seed: int = 0

    def training(self):
        """The `TrainingOptions`."""
        return TrainingOptions(
            trains="all",
            steps=self.steps,
            batch=self.batch,
            rate=self.rate,
            bank="both",
            portraits="person",
            intensities=INTENSITIES,
            ema=0.99,
            seed=self.seed,
        )


INTENSITIES = (0.6, 1.0, 1.4)  # of the three levels
_ABOUT = """\
The weights in this folder are a miniature of DICE-Talk, trained on drawn people alone by `python -m dicetalk
miniature`. It knows nothing else. `python -m dicetalk download` fetches the published weights.
"""


def make(output, work, making, accelerator, on_progress=None):
    """Make the miniature: a checkpoint folder in the published layout, in half precision.

    Args:
        output: the folder to write.
        work: folder of what is kept on the way (drawn takes, states, features); about 2 GB.
        making: Making.
        accelerator: Hugging Face's `Accelerator`, of one process.
        on_progress: called as ``on_progress(stage, done, total, loss)``; the loss is None where there is none.

    Returns:
        The losses of the method's own training, see `dicetalk.training.loop.train`.

    Raises:
        InputError: something cannot be written or continued from, or a loss is not finite.
    """
    output, work = Path(output), Path(work)
    for folder in (work, output):
        folder.mkdir(parents=True, exist_ok=True)
    (output / MINIATURE_FILE).write_text(_ABOUT, encoding="utf-8")

    def report(stage):
        return lambda done, total, loss=None: on_progress and on_progress(stage, done, total, loss)

    chosen = world.takes(making.takes, making.people, making.seed)
    world.draw(work / "takes", chosen, report("drawing"))
    takes = list(world.load(work / "takes", len(chosen)))
    people = [take.person.number for take in chosen]
    seed = making.seed
    ear = towers.train_ear(takes, making.ear_steps, seed=seed, state=work / "ear.pt", on_step=report("ear"))
    eye = towers.train_eye(takes, people, making.eye_steps, seed=seed, state=work / "eye.pt", on_step=report("eye"))
    vae = new_autoencoder(seed)
    state = work / "autoencoder.pt"
    steps = making.autoencoder_steps, making.encoder_steps
    train_autoencoder(vae, takes, *steps, seed=seed, state=state, on_step=report("autoencoder"))
    scale_latents(vae, takes)
    write_companions(output, vae, ear, eye)
    ear, eye, vae = halved(ear), halved(eye), halved(vae)  # as they will be used
    features = towers_features(takes, ear, eye, work / "towers.npz", report("features"))
    write_clips(work / "clips", chosen, takes, features, vae, report("latents"))
    options = making.training()
    objective = build_objective(new_parts(CONFIG, seed), options)
    means = {name: torch.from_numpy(mean) for name, mean in emotion_means().items()}
    history = train(
        objective,
        PreparedClips(work / "clips", options.frames),
        means,
        accelerator,
        work / "training.safetensors",
        save_every=50,
        resume=True,
        on_step=lambda done, total, losses: report("method")(done, total, losses[1]),
    )
    save_parts(objective.half(), output)
    return history


def halved(module):
    """With the weights that a file in half precision holds, computed with in float32."""
    return module.half().float()


def write_companions(output, vae, ear, eye) -> None:
    """Write what a checkpoint folder has beside the method's own four parts."""
    from safetensors.torch import save_file

    from .towers import ear_config

    folder = output / SVD_FOLDER
    for name, module in (("vae", vae), ("image_encoder", eye)):
        shutil.rmtree(folder / name, ignore_errors=True)
        half = {key: tensor.half().contiguous() for key, tensor in module.state_dict().items()}
        (folder / name).mkdir(parents=True)
        if name == "vae":
            module.save_config(folder / name)
            save_file(half, folder / name / "diffusion_pytorch_model.fp16.safetensors", {"format": "pt"})
        else:
            module.config.save_pretrained(folder / name)
            save_file(half, folder / name / "model.fp16.safetensors", {"format": "pt"})
    whisper = output / WHISPER_FOLDER
    whisper.mkdir(parents=True, exist_ok=True)
    ear_config().save_pretrained(whisper)
    half = {f"model.encoder.{name}": tensor.half().contiguous() for name, tensor in ear.state_dict().items()}
    save_file(half, whisper / "model.safetensors", {"format": "pt"})
    write_svd_configs(output)
    if not (output / EMOTIONS_FOLDER).exists():
        write_emotions(output, 0)
