"""Trains the reader of drawn people, on drawings alone, and measures its own error on people it has never seen."""

import dataclasses
import platform
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..drawn import Person, Take, draw, lip_gap
from ..drawn.expression import CLASSES, most
from ..drawn.splits import people, sentences
from ..emotion.options import LEVELS, NAMES
from ..errors import InputError
from .reader import EMBEDDING, SIZE, DrawnReader, ReaderNetwork, of_clip

_COSINE = 16.0  # the scale of cosines in the loss of identity
_MIXED, _DRESSED = 0.25, 0.7  # shares of pictures: of two emotions; with another's clothes and wall


@dataclass(frozen=True)
class ReaderOptions:
    """How the reader is trained; all of it is a choice.

    Attributes:
        faces: people whose faces are drawn, of the training people.
        takes: from which expressions come; each picture has one of a random face.
        each: pictures of each face.
        steps, batch, rate: of the training by AdamW, whose rate rises and falls in one cycle.
        seed: of everything.
    """

    faces: int = 800
    takes: int = 1200
    each: int = 30
    steps: int = 1200
    batch: int = 64
    rate: float = 3e-3
    seed: int = 0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < (0 if field.name == "seed" else 1e-9):
                raise InputError(f"{field.name} of the reader's training must be more than 0.")


def training_pictures(options, on_picture=None):
    """Pictures and what they show.

    Returns:
        dict of tensors: pictures (n, 3, 64, 64) uint8, emotion (n, 8) shares that sum to 1, strength (n,), mouth (n,),
        blendshapes (n, 52), face (n,) places among the faces.
    """
    random = np.random.default_rng([3, options.seed])
    faces, said = [Person.of(number) for number in people("train", options.faces)], sentences("train")
    takes = [_take(faces, said, random) for _ in range(options.takes)]
    rows: dict[str, list] = {name: [] for name in ("pictures", "emotion", "strength", "mouth", "blendshapes", "face")}
    for place, face in enumerate(faces):
        for _ in range(options.each):
            shapes, pose, emotion, strength = _moment(takes, random)
            person = _dressed(face, faces, random) if random.random() < _DRESSED else face
            rows["pictures"].append(np.asarray(draw(person, shapes, pose, SIZE)).transpose(2, 0, 1))
            rows["emotion"].append(emotion)
            rows["strength"].append(strength)
            rows["mouth"].append(lip_gap(shapes))
            rows["blendshapes"].append(shapes)
            rows["face"].append(place)
            if on_picture is not None:
                on_picture(len(rows["face"]), options.faces * options.each)
    kinds = {"pictures": np.uint8, "face": np.int64}
    return {name: torch.from_numpy(np.stack(row).astype(kinds.get(name, np.float32))) for name, row in rows.items()}


def _take(faces, said, random):
    """A take of anyone, whose actions may be stronger or weaker than anyone's."""
    emotion = NAMES[random.integers(len(NAMES))]
    level = int(random.integers(1, most(emotion) + 1))
    person, gain = faces[random.integers(len(faces))], random.uniform(0.6, 1.5)
    manner = dataclasses.replace(person.manner, gains=tuple(gain * each for each in person.manner.gains))
    sentence, seed = said[random.integers(len(said))], 4 * int(random.integers(2**20))
    return Take(dataclasses.replace(person, manner=manner), emotion, level, sentence, seed), gain


def _moment(takes, random):
    """(blendshapes, pose, shares of the emotions, strength) of a frame of a take, or half way between two of them."""

    def one():
        take, gain = takes[random.integers(len(takes))]
        number = int(random.integers(len(take)))
        shares = np.eye(len(NAMES))[take.emotion_number]
        return take.blendshapes[number], take.poses[number], shares, gain * float(take.shown[number])

    shapes, pose, shares, strength = one()
    if random.random() < _MIXED:
        other, _, shares_of_other, strength_of_other = one()
        share = random.uniform(0.2, 0.8)
        shapes = (1 - share) * shapes + share * other
        shares = (1 - share) * shares + share * shares_of_other
        strength = (1 - share) * strength + share * strength_of_other
    return shapes, pose, shares, strength


def _dressed(face, faces, random):
    """The face in someone else's clothes before someone else's wall: neither is to say who it is."""
    other, wall = (faces[random.integers(len(faces))] for _ in range(2))
    return dataclasses.replace(face, clothes=other.clothes, fabric=other.fabric, wall=wall.wall)


def train_reader(options, pictures, device="cpu", on_step=None):
    """Train the network.

    Args:
        options: ReaderOptions.
        pictures: as `training_pictures` gives them.
        device: where; on a CPU in bfloat16 where it computes that.
        on_step: called as `on_step(done, total, loss)`.

    Returns:
        ReaderNetwork in evaluation mode, float32, on the CPU.
    """
    torch.manual_seed(options.seed)
    network = ReaderNetwork().to(device, memory_format=torch.channels_last).train()
    who = nn.Linear(EMBEDDING, options.faces, bias=False).to(device)
    parameters = [*network.parameters(), *who.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, options.steps, pct_start=0.1)
    random = torch.Generator().manual_seed(options.seed)
    for step in range(1, options.steps + 1):
        chosen = torch.randint(len(pictures["face"]), (options.batch,), generator=random)
        batch = {name: values[chosen] for name, values in pictures.items()}
        seen = worsened(batch["pictures"].float() / 255, random).to(device, memory_format=torch.channels_last)
        target = {name: values.to(device) for name, values in batch.items() if name != "pictures"}
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            read = network(seen)
        loss = _loss({name: values.float() for name, values in read.items()}, target, who)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step, options.steps, float(loss.detach()))
    return network.cpu().to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def _loss(read, target, who):
    cosines = F.linear(read["embedding"], F.normalize(who.weight.float(), dim=1))
    return (
        F.cross_entropy(read["emotion"], target["emotion"], label_smoothing=0.02)
        + 5 * F.mse_loss(read["strength"][:, 0], target["strength"])
        + 20 * F.mse_loss(read["mouth"][:, 0], target["mouth"])
        + 20 * F.mse_loss(read["blendshapes"], target["blendshapes"])
        + 0.5 * F.cross_entropy(_COSINE * cosines, target["face"])
    )


def worsened(pictures, random):
    """Pictures as a model might make them: moved, blurred, with noise and spots, in slightly other colours.

    Args:
        pictures: (n, 3, side, side), 0 to 1.
        random: torch Generator.
    """
    count, side = len(pictures), pictures.shape[-1]

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand((count, *shape), generator=random)

    zoom, turn = uniform(0.88, 1.1), uniform(-0.06, 0.06)
    rows = torch.stack([zoom * turn.cos(), -zoom * turn.sin(), uniform(-0.06, 0.06)], 1)
    columns = torch.stack([zoom * turn.sin(), zoom * turn.cos(), uniform(-0.06, 0.06)], 1)
    grid = F.affine_grid(torch.stack([rows, columns], 1), list(pictures.shape), align_corners=False)
    pictures = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)

    small = int(torch.randint(side // 3, side, (), generator=random))
    blurred = F.interpolate(pictures, (small, small), mode="bilinear", antialias=True, align_corners=False)
    blurred = F.interpolate(blurred, (side, side), mode="bilinear", align_corners=False)
    pictures = torch.lerp(pictures, blurred, (uniform(-0.5, 1.0, 1, 1, 1)).clamp(min=0))

    worse = (torch.rand((count, 1, 1, 1), generator=random) < 0.7).float()
    spots = torch.randn((count, 3, side // 8, side // 8), generator=random)
    spots = F.interpolate(spots, (side, side), mode="bilinear", align_corners=False)
    noise = torch.randn(pictures.shape, generator=random)
    pictures = pictures + worse * (uniform(0, 0.05, 1, 1, 1) * spots + uniform(0, 0.06, 1, 1, 1) * noise)
    gain, shift = 1 + worse * uniform(-0.12, 0.12, 3, 1, 1), worse * uniform(-0.06, 0.06, 3, 1, 1)
    return (pictures * gain + shift).clamp(0, 1)


def held_out_takes(total):
    """For each of so many held-out people, a take of each of the 22 classes; each says a held-out sentence."""
    said = sentences("held-out")
    for place, number in enumerate(people("held-out", total)):
        person = Person.of(number)
        for at, (emotion, level) in enumerate(CLASSES):
            yield Take(person, emotion, level, said[(place + at) % len(said)], 3)


def errors(reader, total=50, among=50, every=2, changed=None, on_take=None) -> dict:
    """How the reader reads drawn people that it was not trained on, who say sentences that it was not trained on.

    Args:
        reader: DrawnReader.
        total: people, each with all 22 classes of emotion and level.
        among: people whose portraits a clip is compared with, these included.
        every: which of a take's frames are read: each `every`-th.
        changed: applied to the pictures (n, 64, 64, 3) uint8 of a take before they are read; None reads them as drawn.
        on_take: called as `on_take(done, total)`.

    Returns:
        JSON's numbers. emotion: share of the clips read right, and `by_level` and `by_emotion`; `strength`: mean read
        for each level 1 to 3 and for neutral; mouth: `correlation` within a clip (mean and the worst tenth), and
        `error` (mean absolute); blendshapes: mean absolute error; identity: share of clips whose nearest portrait is
        the right one of `among`, and the same `by_emotion`.
    """
    takes = list(held_out_takes(total))
    numbers = people("held-out", max(total, among))
    portraits = reader.read([np.asarray(draw(Person.of(number), size=SIZE)) for number in numbers])["embedding"]
    rows = []
    for done, take in enumerate(takes, 1):
        chosen = range(0, len(take), every)
        pictures = np.stack([take.frame(number, SIZE) for number in chosen])
        read = reader.read(pictures if changed is None else changed(pictures))
        clip, shapes = of_clip(read), take.blendshapes[::every]
        rows.append(
            {
                **{"emotion": take.emotion, "level": take.level, "strength": clip["strength"]},
                "right": NAMES[int(clip["emotion"].argmax())] == take.emotion,
                "correlation": float(np.corrcoef(read["mouth"], lip_gap(shapes))[0, 1]),
                "mouth": float(np.abs(read["mouth"] - lip_gap(shapes)).mean()),
                "blendshapes": float(np.abs(read["blendshapes"] - shapes).mean()),
                "found": numbers[int((portraits @ clip["embedding"]).argmax())] == take.person.number,
            }
        )
        if on_take is not None:
            on_take(done, len(takes))

    def mean(name, **where):
        chosen = [row[name] for row in rows if all(row[key] == value for key, value in where.items())]
        return round(float(np.mean(chosen)), 4)

    return {
        "people": total,
        "among": len(numbers),
        "clips": len(rows),
        "emotion": mean("right"),
        "emotion_by_level": {str(level): mean("right", level=level) for level in LEVELS},
        "emotion_by_emotion": {name: mean("right", emotion=name) for name in NAMES},
        "strength": {
            name: [mean("strength", emotion=name, level=level) for level in range(1, most(name) + 1)] for name in NAMES
        },
        "mouth_correlation": mean("correlation"),
        "mouth_correlation_worst_tenth": round(float(np.quantile([row["correlation"] for row in rows], 0.1)), 4),
        "mouth_error": mean("mouth"),
        "blendshapes_error": mean("blendshapes"),
        "identity": mean("found"),
        "identity_by_emotion": {name: mean("found", emotion=name) for name in NAMES},
    }


def make_reader(options, device="cpu", people_to_test=50, on_progress=None) -> DrawnReader:
    """Draw, train and measure: the whole of `evaluate --train-reader`.

    Args:
        on_progress: called as `on_progress(what, done, total, loss)`; the loss is None but in training.
    """

    def tell(what):
        return None if on_progress is None else lambda done, total, loss=None: on_progress(what, done, total, loss)

    began = time.monotonic()
    network = train_reader(options, training_pictures(options, tell("pictures")), device, tell("training"))
    provenance = {
        **{"options": dataclasses.asdict(options), "device": str(device), "machine": platform.machine()},
        **{"seconds": round(time.monotonic() - began), "torch": torch.__version__},
    }
    halves = {name: value.half().to(value.dtype) for name, value in network.state_dict().items()}
    network.load_state_dict(halves)  # as its file has it, so that the errors are those of the file
    reader = DrawnReader(network, provenance, {})
    return dataclasses.replace(reader, errors=errors(reader, people_to_test, people_to_test, on_take=tell("testing")))


def error_table(reader) -> str:
    """Its own error, as Markdown."""
    found = reader.errors
    strengths = "; ".join(
        f"{name} {', '.join(f'{value:.2f}' for value in values)}" for name, values in found["strength"].items()
    )
    low, high = min(found["identity_by_emotion"].values()), max(found["identity_by_emotion"].values())
    levels = ", ".join(f"{level}: {value:.1%}" for level, value in found["emotion_by_level"].items())
    least, share = min(found["emotion_by_emotion"].items(), key=lambda each: each[1])
    return "\n".join(
        [
            f"The reader's own error: {found['clips']} drawn clips of {found['people']} people it has never seen.",
            "",
            "| what | read |",
            "|---|---|",
            f"| emotion, of a clip | {found['emotion']:.1%} right (level {levels}; {least} {share:.1%}) |",
            f"| strength (drawn: 0.4, 0.65, 0.9 at most) | {strengths} |",
            f"| mouth, correlation in a clip | {found['mouth_correlation']:.3f} on average, "
            f"{found['mouth_correlation_worst_tenth']:.3f} at the worst tenth |",
            f"| mouth, error | {found['mouth_error']:.3f} of 1 |",
            f"| blendshapes, error | {found['blendshapes_error']:.3f} of 1 |",
            f"| identity, the right one of {found['among']} | {found['identity']:.1%} "
            f"(by emotion {low:.1%} to {high:.1%}) |",
        ]
    )
