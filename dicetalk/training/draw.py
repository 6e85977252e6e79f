"""What is random in a step, drawn for each clip of it from the seed and its number alone.

So a run that continues, one in several processes and one in accumulated parts draw what an uninterrupted run in one
process draws.
"""

import hashlib
import json

import torch
from torch import Tensor

from ..emotion.options import FPS
from ..errors import InputError
from ..model.settings import EXPRESSION_BUCKET, LATENT_CHANNELS, LATENT_SCALE, MOTION_BUCKET
from .labels import UNKNOWN, classes_of
from .losses import DROPOUT, allowed_classes


def generator(*parts) -> torch.Generator:
    """Seeded by anything that JSON can hold."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def clip_number(count, seed, number) -> int:
    """The clip that is drawn `number`-th: each once in a pass, in an order of its own."""
    passed, place = divmod(number, count)
    return int(torch.randperm(count, generator=generator(seed, "pass", passed))[place])


def draw_item(clips, priors, references, options, hidden, number) -> dict[str, Tensor]:
    """One clip of a step, and all that is random in it, on the CPU.

    Args:
        clips: `dataset.PreparedClips`.
        priors: emotion → (256,) mean.
        references: `clips.references()`.
        options: TrainingOptions.
        hidden: widths of the classifier's two hidden layers.
        number: of the item, from the beginning of the training.

    Returns:
        latents (frames, 4, h, w) scaled by 0.18215; noise of that shape; sigma; portrait (4, h, w), unscaled; clip
        (dim,); audio (frames, 10, 5, width); face_mask (1, 8h, 8w); z (256,); allowed (22,) bool; `seen` and `told`, 0
        or 1: whether portrait and CLIP, and whether audio and emotion, are there; retrieve, bool: of the bank's two
        ways the one for "both"; keep1, keep2 (frames, hidden) bool; time_ids (3,).
    """
    random = generator(options.seed, "item", number)
    chosen, given = draw_clip(clips, options, number, random)
    record = clips.records[chosen]

    def whole(limit):
        return int(torch.randint(limit, (), generator=random))

    def uniform():
        return float(torch.rand((), generator=random))

    def normal(*shape):
        return torch.randn(shape, generator=random)

    dropped, from_reference = uniform(), uniform() < options.reference
    others = references[chosen]
    if from_reference and others:
        mean, deviation = clips.gaussian(others[whole(len(others))])
    else:
        mean, deviation = _around(priors, record, options.intensities), options.prior_deviation
    shape = options.frames, LATENT_CHANNELS, *clips.size
    return given | {
        "noise": normal(*shape),
        "sigma": (options.sigma_mean + options.sigma_deviation * normal()).exp(),
        "z": mean + deviation * normal(len(mean)),
        "allowed": allowed_classes(classes_of(record.emotion, record.level)),
        "seen": torch.tensor(float(dropped >= options.drop_all)),
        "retrieve": torch.tensor(number % 2 == 0),
        "told": torch.tensor(float(dropped >= options.drop_all + options.drop_driving)),
        "keep1": torch.rand(options.frames, hidden[0], generator=random) >= DROPOUT,
        "keep2": torch.rand(options.frames, hidden[1], generator=random) >= DROPOUT,
    }


def draw_clip(clips, options, number, random):
    """Which clip an item shows, and its latents, portrait, clip, audio, face_mask and time_ids, as `draw_item` gives
    them; `random` is the item's generator."""
    chosen = clip_number(len(clips), options.seed, number)
    record = clips.records[chosen]

    def whole(limit):
        return int(torch.randint(limit, (), generator=random))

    start, portrait = whole(record.frames - options.frames + 1), whole(record.frames)
    parts = clips.read(chosen, start, options.frames, portrait)
    if options.portraits == "person":
        own = clips.by_person[record.person]
        other = own[whole(len(own))]
        parts |= clips.picture(other, whole(clips.records[other].frames))
    return chosen, parts | {
        "latents": parts["latents"] * LATENT_SCALE,
        "face_mask": parts["face_mask"][None],
        "time_ids": torch.tensor([FPS, MOTION_BUCKET, EXPRESSION_BUCKET]),
    }


def references_of(clips, priors, options):
    """`clips.references()`, after a check that every clip has a label, a prior of it, and a reference if it needs one;
    InputError otherwise."""
    if unlabelled := [record.name for record in clips.records if not record.emotion]:
        raise InputError(
            f"The clip {unlabelled[0]} has no emotion, which training needs: give the manifest one, and prepare again."
        )
    emotions = {record.emotion for record in clips.records}
    if missing := sorted(emotions - set(priors)):
        raise InputError(f"There is no prior of {missing[0]}, which clips show: name a folder of --emotions with it.")
    if options.intensities != (1.0, 1.0, 1.0) and "neutral" not in priors:
        raise InputError("Intensities of levels need the prior of neutral: name a folder of --emotions with it.")
    references = clips.references()
    if options.reference > 0:
        alone = {record.emotion for record, others in zip(clips.records, references) if not others}
        if alone:
            raise InputError(
                f"--reference {options.reference:g}: no clip of {sorted(alone)[0]} by another person has a Gaussian. "
                "Prepare with --embedder, or give --reference 0."
            )
    return references


def _around(priors, record, intensities):
    prior = priors[record.emotion]
    share = 1.0 if record.level == UNKNOWN else intensities[record.level - 1]
    return prior if share == 1 else priors["neutral"] + share * (prior - priors["neutral"])


def collate(items) -> dict[str, Tensor]:
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}
