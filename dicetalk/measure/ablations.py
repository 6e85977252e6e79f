"""Ablations of the method's training: a small network is trained without one part or another, and measured."""

import copy
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..checkpoints.tiny import emotion_means
from ..emotion.options import NAMES, BankOptions
from ..emotion.value import Emotion
from ..errors import InputError, reason
from ..files import write_errors, written_beside
from ..miniature import drawn_takes, make
from ..miniature.features import encoded, write_clips
from ..miniature.options import INTENSITIES
from ..model.emotion import EmotionModel
from ..pipeline import DiceTalkPipeline
from ..training.dataset import PreparedClips
from ..training.loop import train
from ..training.options import TrainingOptions
from ..training.parts import build_objective, new_parts, start_from_emotions
from .drawn_clips import Sampling, Studio
from .goals import crowd_of, make_all, own_lips, plain_clips
from .reader import read_reader

SAMPLED = {"full": "the full bank", "nearest": "the nearest code"}  # mode of the bank → what the table calls it
_CHANNELS = (32, 64, 64, 64)
_AMONG, _LONGEST = 50, 13  # people to choose from; frames of a clip


@dataclass(frozen=True)
class Ablation:
    """One training.

    Attributes:
        title: for the table.
        changed: TrainingOptions that differ from the first row's.
        linear: tokens from one linear map, in the bank's place.
        banks: modes of the bank that its clips are sampled with.
    """

    title: str
    changed: dict[str, Any] = field(default_factory=dict)
    linear: bool = False
    banks: tuple[str, ...] = ("full",)


ABLATIONS = (
    Ablation("all of it, by the full bank", banks=("full", "nearest")),
    Ablation("no discrimination objective", {"discrimination": 0.0}),
    Ablation("the objective at all noise levels", {"discrimination_noise": "all"}),
    Ablation("the objective below sigma 1", {"discrimination_noise": "low"}),
    Ablation("no bank: tokens from one linear map", linear=True),
    Ablation("by retrieval", {"bank": "retrieval"}, banks=("full", "nearest")),
    Ablation("half of the clips each way", {"bank": "both"}, banks=("full", "nearest")),
)


class OneLinearMap(EmotionModel):
    """The emotion model without its bank: 32 tokens from one linear map of the emotion.

    Args:
        priors: name → (256,) mean; the map starts centred on them and scaled to a spread of 1, as the bank's do.
        sizes: EmotionModel's arguments.
    """

    def __init__(self, priors, **sizes):
        super().__init__(**sizes)
        shape = self.emo_linear.tokens, self.emo_linear.width
        self.linear = nn.Sequential(nn.Linear(self.emotion_dim, shape[0] * shape[1]), nn.Unflatten(-1, shape))
        means = torch.stack([priors[name] for name in sorted(priors)]).float()
        self.register_buffer("centre", means.mean(0), persistent=False)
        with torch.no_grad():
            weight = self.linear[0].weight
            weight /= ((means - self.centre) @ weight.T).std()

    def forward(self, mean, bank=None, on_chunk=None):
        """(N, tokens, width) of (N, 256) means; `bank` changes nothing."""
        tokens = self.linear(mean - self.centre.to(mean))
        if on_chunk is not None:
            on_chunk(len(mean), len(mean))
        return tokens

    def training_tokens(self, z, retrieval, masked=None):
        """(N, tokens, width), and no loss of a bank."""
        seen = z if masked is None else z * (~masked)[:, None].to(z.dtype)
        return self(seen), z.new_zeros(())


def ablate(checkpoint, output, world, ablations=ABLATIONS, on_progress=None) -> list[dict[str, Any]]:
    """Train and measure each ablation with each seed; what an ended run measured is not done again.

    Args:
        checkpoint: `Checkpoint` of a miniature: its VAE and its encoders see the drawn takes.
        output: folder of what is kept: the drawn takes' features, and ablations.json.
        world: World.
        ablations: Ablations.
        on_progress: called as ``on_progress(what, done, total)``.

    Returns:
        A dictionary for each training and way of sampling: title, bank, seed, accuracy, lips, identity, denoising (mean
        of the last 50 steps).

    Raises:
        InputError: the folder is of another world, or something cannot be written.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    results = _kept(output / "ablations.json", asdict(world) | {"checkpoint": checkpoint.name})
    pipeline = DiceTalkPipeline.from_checkpoint(checkpoint)
    priors = {name: torch.from_numpy(mean) for name, mean in emotion_means().items()}
    clips = _clips(pipeline, output, world, on_progress)
    studio = Studio(pipeline, read_reader(), frames=_LONGEST)
    for ablation in ablations:
        for seed in range(world.seeds):
            kept = [each["bank"] for each in results if (each["title"], each["seed"]) == (ablation.title, seed)]
            if set(ablation.banks) <= set(kept):
                continue
            what = f"{ablation.title}, seed {seed}"
            told = on_progress and (lambda done, total, _, what=what: on_progress(what, done, total))
            objective, losses = _trained(ablation, world, seed, priors, clips, told)
            pipeline.register_modules(
                unet=objective.unet,
                pose_guider=objective.pose_guider,
                audio_projection=objective.audio_linear,
                emotion_model=objective.emo_model,
            )
            for bank in ablation.banks:
                told = on_progress and (lambda done, total, what=what: on_progress(f"clips: {what}", done, total))
                read = _read(studio, priors, bank, world, told)
                results.append({"title": ablation.title, "bank": bank, "seed": seed, **read, "denoising": losses})
            _keep(output / "ablations.json", asdict(world) | {"checkpoint": checkpoint.name}, results)
    return results


def _options(ablation, world, seed):
    given = {name: getattr(world, name) for name in ("steps", "cool_down", "batch", "frames", "rate")}
    shared: dict[str, Any] = {
        "trains": "all",
        "warm_up": 10,
        "bank": "full",
        "portraits": "person",
        "intensities": INTENSITIES,
        "ema": 0.97,
        "seed": seed,
    }
    return TrainingOptions(**shared | given | ablation.changed)


def _clips(pipeline, output, world, on_progress):
    chosen = drawn_takes.choose(world.takes, world.people)
    told = on_progress and (lambda done, total, *_: on_progress("drawn takes", done, total))
    drawn_takes.draw(output / "takes", chosen, told)
    takes = list(drawn_takes.load(output / "takes", len(chosen)))
    features = encoded(takes, pipeline.audio_encoder, pipeline.image_encoder, output / "encoded.npz")
    write_clips(output / "clips", chosen, takes, features, pipeline.vae)
    return PreparedClips(output / "clips", world.frames)


def _trained(ablation, world, seed, priors, clips, on_step):
    """(Objective, mean denoising loss of the last steps)."""
    from accelerate import Accelerator

    config = copy.deepcopy(make.CONFIG)
    config["unet"] |= {"block_out_channels": _CHANNELS, "num_attention_heads": (1, 1, 1, 1)}
    config["pose_guider"]["conditioning_embedding_channels"] = _CHANNELS[0]
    config["emo_model"]["classifier_dims"] = (_CHANNELS[-1], *config["emo_model"]["classifier_dims"][1:])
    parts = new_parts(config, seed)
    start_from_emotions(parts["emo_model"], priors, seed)
    if ablation.linear:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts["emo_model"] = OneLinearMap(priors, **config["emo_model"])
    objective = build_objective(parts, _options(ablation, world, seed))
    history = train(objective, clips, priors, Accelerator(cpu=True), on_step=on_step)
    return objective, float(np.mean([losses[2] for losses in history[-50:]]))


def _read(studio, priors, bank, world, on_result):
    sampling = Sampling(steps=world.sampling_steps, window=world.frames)
    emotions = {name: Emotion(priors[name], bank=BankOptions(bank)) for name in NAMES}
    crowd = crowd_of(world.measured)
    results = make_all(studio, {"": plain_clips(emotions, crowd)}, sampling, on_result)[""]
    among = crowd_of(max(_AMONG, world.measured))
    return {
        "accuracy": float(np.mean([each.named == each.asked.about["emotion"] for each in results])),
        "lips": own_lips(results),
        "identity": float(np.mean([studio.nearest(each, among)[0] == each.asked.person for each in results])),
    }


def table(results) -> str:
    """In markdown: the mean of the seeds of each training and way of sampling, and the range."""
    heads = ["trained", "sampled by", "emotion accuracy", "mouth, correlation", "identity", "denoising loss"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    forms = {"accuracy": "{:.0%}", "lips": "{:.2f}", "identity": "{:.0%}", "denoising": "{:.3f}"}
    for title, bank in dict.fromkeys((each["title"], each["bank"]) for each in results):
        seeds = [each for each in results if (each["title"], each["bank"]) == (title, bank)]
        linear = any(each.linear for each in ABLATIONS if each.title == title)
        cells = [_spread([each[name] for each in seeds], form.format) for name, form in forms.items()]
        lines.append("| " + " | ".join([title, "the map" if linear else SAMPLED[bank], *cells]) + " |")
    return "\n".join(lines)


def _spread(values, form):
    mean = form(float(np.mean(values)))
    return mean if len(values) == 1 else f"{mean} ({form(min(values))} to {form(max(values))})"


def _kept(path, world):
    """The results in the file; InputError where they are of another world, or cannot be read."""
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        was, results = content["world"], content["results"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({reason(error)}): name another folder.") from error
    for name, value in world.items():
        if name != "seeds" and was.get(name) != value:
            raise InputError(
                f"{path} is of another world: {name} was {was.get(name)!r}, and is {value!r}. Give the same numbers, "
                "or another folder."
            )
    return results


def _keep(path, world, results):
    with written_beside(path) as part, write_errors(path):
        part.write_text(json.dumps({"world": world, "results": results}, indent=1), encoding="utf-8")
