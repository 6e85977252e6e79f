"""Training the embedder, in one process or many, so that it can be stopped and continued to the same result.

Whatever is random is drawn from the seed and the step's number, never from what came before: a run that continues
from a checkpoint sees what an uninterrupted one does.
"""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ..errors import InputError
from ..files import written_beside
from .dataset import batch_of
from .losses import IdentityCritic, anchor_loss, contrastive_loss, reverse_gradient
from .model import EmotionEmbedder
from .processes import check_same, together

LOSSES = ("total", "anchor", "contrastive", "identity")
REVERSAL_ALONE = 5.0  # weight of the reversed gradient with one modality, which loses emotions with more
_STATISTICS_CLIPS = 1000
_WARM_UP = 50  # steps


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        epochs: passes over the clips.
        batch: clips per step and process; the contrastive loss compares within these.
        rate: AdamW's learning rate; it rises over 50 steps and falls to 0 by a cosine.
        decay: AdamW's weight decay.
        anchor, contrastive, reversal: weights of the losses. With a contrastive weight of 0.5 one emotion was never
            learned in the proof's seed 0, with the reversed gradient and without. `reversal` scales the gradient that
            comes back reversed from the identity critic; 0 leaves the critic out.
        temperature: of the contrastive loss, see there.
        reversal_start: share of the training after which the gradient is reversed; it grows over another 0.2 of the
            training. Until then the critic only learns, and emotions find their places.
        drop: share of the clips whose face is hidden in a step, and as large a share whose voice is; never both.
        use: "both", "visual" or "audio": the modalities to train with.
        seed: of everything.
    """

    epochs: int = 8
    batch: int = 64
    rate: float = 3e-3
    decay: float = 0.01
    anchor: float = 1.0
    contrastive: float = 0.1
    reversal: float = 15.0
    temperature: float = 0.01
    reversal_start: float = 0.3
    drop: float = 0.2
    use: str = "both"
    seed: int = 0


class Objective(nn.Module):
    """The embedder, the critic beside it, and the losses, in one module: what is trained."""

    def __init__(self, embedder, actors, options):
        super().__init__()
        self.embedder, self.options = embedder, options
        self.critic = (
            IdentityCritic(actors, embedder.config.code, len(embedder.anchors)) if options.reversal > 0 else None
        )

    def forward(self, batch, strength):
        """The losses of a batch (`dataset.batch_of`) as LOSSES; `strength`, 0 to 1, is the reversal's at this time."""
        *tokens, emotions, actors = batch
        options = self.options
        code = self.embedder.encode(*tokens)
        mean, log_variance = self.embedder.gaussian(code)
        anchor = anchor_loss(mean, log_variance, self.embedder.anchors[emotions])
        contrastive = contrastive_loss(mean, emotions, actors, options.temperature)
        identity = mean.new_zeros(())
        if self.critic is not None:
            code = reverse_gradient(code, options.reversal * strength)
            identity = self.critic(code, emotions, actors)
        total = options.anchor * anchor + options.contrastive * contrastive + identity
        return torch.stack([total, anchor, contrastive, identity])


def new_embedder(config, anchors, clips, seed):
    """An untrained embedder whose tokens are standardized by some of the clips; the same for the same seed.

    Args:
        config: EmbedderConfig.
        anchors: (emotions, 256) priors in the order of config.emotions.
        clips: `dataset.Clips`.
        seed: a whole number.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        embedder = EmotionEmbedder(config)
    embedder.anchors.copy_(anchors)
    _point_at(embedder, anchors)
    step = -(-len(clips) // _STATISTICS_CLIPS)
    chosen = [clips[number] for number in range(0, len(clips), step)]
    for tokens, part in ((embedder.visual, 0), (embedder.audio, 2)):
        known = torch.cat([clip[part][clip[part + 1]] for clip in chosen])
        if len(known) > 1:
            tokens.mean.copy_(known.mean(0))
            # A feature that never moves stays 0 rather than blowing up in the clip where it does.
            deviation = known.std(0)
            tokens.deviation.copy_(torch.where(deviation > 1e-4, deviation, 1))
    return embedder


@torch.no_grad()
def _point_at(embedder, anchors):
    """Let the code's first numbers be the directions in which the priors differ, one each."""
    residuals = anchors - embedder.neutral
    _, sizes, directions = torch.linalg.svd(residuals, full_matrices=False)
    count = min(len(anchors) - 1, embedder.config.code)
    unit = residuals.norm(dim=-1).mean() / residuals.shape[1] ** 0.5
    columns = directions[:count].T * sizes[:count] / len(anchors) ** 0.5 / unit
    embedder.residual.weight[:, :count] = columns
    embedder.residual.weight[:, count:] *= 0.1
    embedder.residual.bias.zero_()


def train(embedder, clips, options, accelerator, state=None, save_every=200, resume=False, on_step=None):
    """Train an embedder in place.

    Args:
        embedder: as `new_embedder` gives it, on the CPU.
        clips: `dataset.Clips` to learn from; the same in every process.
        options: TrainingOptions.
        accelerator: Hugging Face's `Accelerator`.
        state: file to keep the state of the training in; None keeps none.
        save_every: steps from one saving of the state to the next.
        resume: continue from `state` where it is there.
        on_step: called as `on_step(done, total, losses)` after each step, in the main process; losses are floats as
        LOSSES.

    Returns:
        [[step, *losses], ...], averages over stretches of the training.

    Raises:
        InputError: too few clips, a state that is of another run, or clips or states that differ between processes.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    run = _run(embedder, clips, options, world)
    check_same(run, "The processes train with different options, priors or clips: give all of them the same.")
    actors = int(clips.actors.max()) + 1
    if actors < 2:
        raise InputError("Training needs clips by two actors or more, besides those held out.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed + 1)
        objective = Objective(embedder, actors, options)
    optimizer = torch.optim.AdamW(embedder.parameters(), lr=options.rate, weight_decay=options.decay)
    steps_per_epoch = len(clips) // (options.batch * world)
    if steps_per_epoch == 0:
        raise InputError(f"{len(clips)} clips do not fill one batch of {options.batch} in {world} processes.")
    total = steps_per_epoch * options.epochs
    found = resume and state is not None and Path(state).is_file()
    done, history, stretch = together(lambda: _load_state(state, run, objective, optimizer) if found else (0, [], []))
    check_same(
        done,
        f"The processes do not find the same state of the training in {state}: it must be in a folder that all "
        "machines share.",
    )
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    wrapped.train()
    order = None
    for step in range(done, total):
        epoch, place = divmod(step, steps_per_epoch)
        if order is None or place == 0:
            order = torch.randperm(len(clips), generator=_generator(options.seed, "epoch", epoch))
        start = (place * world + rank) * options.batch
        batch = _batch(clips, order[start : start + options.batch], embedder.config.tokens, options, step, rank)
        _set_rate(optimizer, options, step, total)
        strength = min(1.0, max(0.0, (step / total - options.reversal_start) / 0.2))
        losses = wrapped([part.to(accelerator.device) for part in batch], strength)
        optimizer.zero_grad()
        accelerator.backward(losses[0])
        accelerator.clip_grad_norm_(embedder.parameters(), 1.0)
        optimizer.step()
        stretch.append(losses.detach().tolist())
        if len(stretch) == max(1, total // 100):
            history.append([step + 1, *torch.tensor(stretch).mean(0).tolist()])
            stretch = []
        if accelerator.is_main_process:
            if state is not None and ((step + 1) % save_every == 0 or step + 1 == total):
                _save_state(state, run, objective, optimizer, step + 1, history, stretch)
            if on_step is not None:
                on_step(step + 1, total, losses.detach().tolist())
    accelerator.wait_for_everyone()
    embedder.to("cpu").eval()
    return history


def _batch(clips, numbers, tokens, options, step, rank):
    generator = _generator(options.seed, "step", step, rank)
    visual, visual_mask, audio, audio_mask, emotions, actors = batch_of(clips, numbers, tokens, generator)
    chance = torch.rand(len(numbers), generator=generator)
    seen, heard = visual_mask.any(1), audio_mask.any(1)
    drop = options.drop if options.use == "both" else 0.0
    hide_visual, hide_audio = (chance < drop) & heard, (chance >= 1 - drop) & seen
    visual_mask = visual_mask & ~hide_visual[:, None] & (options.use != "audio")
    audio_mask = audio_mask & ~hide_audio[:, None] & (options.use != "visual")
    return visual, visual_mask, audio, audio_mask, emotions, actors


def _set_rate(optimizer, options, step, total):
    rise = min(1.0, (step + 1) / _WARM_UP)
    for group in optimizer.param_groups:
        group["lr"] = options.rate * rise * 0.5 * (1 + math.cos(math.pi * step / total))


def _generator(*parts):
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def _run(embedder, clips, options, processes):
    """What a state must agree in with the run that continues from it: name → JSON value."""
    content = json.dumps([clips.names, clips.emotions.tolist(), clips.actors.tolist()])
    return {
        **dataclasses.asdict(options),
        **dataclasses.asdict(embedder.config),
        "emotions": list(embedder.config.emotions),
        "priors": hashlib.sha256(embedder.anchors.numpy().tobytes()).hexdigest()[:16],
        "clips": hashlib.sha256(content.encode()).hexdigest()[:16],
        "features": clips.fingerprint(),
        "processes": processes,
    }


def _save_state(path, run, objective, optimizer, step, history, stretch):
    tensors = {f"model.{name}": tensor for name, tensor in objective.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in moments.items()})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    record = {"run": run, "step": step, "history": history, "stretch": stretch}
    with written_beside(path) as part:
        part.write_bytes(save(tensors, {"format": "dicetalk-embedder-training", "state": json.dumps(record)}))


def _load_state(path, run, objective, optimizer):
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get("state", "null"))
            # Copies: what is mapped to the file would keep Windows from replacing it with the next state.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        was = record["run"]
        differing = [name for name in run if was.get(name) != run[name]]
        if differing:
            name = differing[0]
            raise InputError(
                f"{path} is of another run: {name} was {was.get(name)!r}, and is {run[name]!r}. Start without "
                "--resume, or as that run was started."
            )
        weights = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")}
        objective.load_state_dict(weights)
        moments = {}
        for name, tensor in tensors.items():
            kind, number, rest = name.split(".", 2)
            if kind == "optimizer":
                moments.setdefault(int(number), {})[rest] = tensor
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        return record["step"], record["history"], record["stretch"]
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is no state of a training that can be continued ({reason}).") from error
