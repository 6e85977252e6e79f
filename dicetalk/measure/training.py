"""Memory of a training step of the UNet by what trains, counted from shapes, which any machine can do."""

from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ..sampling.counting import DICETALK, Workload, build_network
from ..training.options import TrainingOptions
from ..training.parts import learns

CHOICES = ("all", "adapters")  # of WHAT_TRAINS; a LoRA's layers are those of the package peft
_DRIVING = ("audio_tokens", "emotion_tokens", "pose_features")  # made by parts that learn


@dataclass(frozen=True)
class StepMemory:
    """What a step of one clip takes, beside the UNet's weights and the one layer at work.

    Attributes:
        kept: bytes of activations that the forward pass keeps for the backward pass.
        learning: how many of the UNet's numbers learn.
        optimizer: bytes of their gradients and of AdamW's two moments, in float32.
    """

    kept: int
    learning: int
    optimizer: int


def step_memory(workload: Workload, trains: str, checkpointing: bool) -> StepMemory:
    """Count a step.

    Args:
        workload: size, frames, precision and network; of its branches one is counted, since a step has one a clip.
        trains: one of CHOICES.
        checkpointing: whether layers run again in the backward pass.
    """
    options = TrainingOptions(trains=trains, checkpointing=checkpointing)
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that no other storage gets its place
        return tensor

    with FakeTensorMode():
        unet = build_network(DICETALK, workload, "cpu").train()
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(learns(f"unet.{name}", options))
        if checkpointing:
            unet.enable_gradient_checkpointing()
        inputs = {name: each[:1] if each.ndim else each for name, each in workload.inputs(DICETALK, "cpu").items()}
        for name in _DRIVING:
            inputs[name].requires_grad_()
        weights = {parameter.untyped_storage()._cdata for parameter in unet.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            unet(**inputs, return_dict=False)
        learning = sum(parameter.numel() for parameter in unet.parameters() if parameter.requires_grad)
    size = sum(storage.nbytes() for number, storage in kept.items() if number not in weights)
    return StepMemory(size, learning, 3 * 4 * learning)


def rows(workload: Workload) -> list[dict[str, Any]]:
    """The counts of every choice: "trains", "checkpointing", and what `StepMemory` has."""
    return [
        {"trains": trains, "checkpointing": checkpointing, **vars(step_memory(workload, trains, checkpointing))}
        for trains in CHOICES
        for checkpointing in (False, True)
    ]


def table(counted: list[dict[str, Any]]) -> str:
    """What `rows` gives, as text."""
    text = [f"{'trains':10}{'checkpointing':>14}{'kept, GiB':>11}{'learn, M':>10}{'gradients and AdamW, GiB':>26}"]
    for row in counted:
        text.append(
            f"{row['trains']:10}{'on' if row['checkpointing'] else 'off':>14}{row['kept'] / 2**30:11.1f}"
            f"{row['learning'] / 1e6:10.1f}{row['optimizer'] / 2**30:26.1f}"
        )
    return "\n".join(text)
