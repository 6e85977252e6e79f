"""Golden cases of training: losses and gradients as the published code computes them.

Such a case has `relative_tolerance` in place of `tolerance`, and `parameters`, names in the order of the rows of
out.gradients. A row is the norm of the parameter's gradient, and its dot product with ``filled_tensor("probe." +
name)``. The loss is 100 · mean(output · w), plus the vector-quantization loss in the emotion model's cases, with w
drawn by `seed`, which is in config or in the note.
"""

import re

import numpy as np
import torch

from .filling import built_module, filled_tensor

GRADIENTS = "gradients"
GRADIENT_TOLERANCE = 1e-3  # of a gradient's norm
GRADIENT_SLACK = 1e-5
ROUNDING_ALLOWANCE = 5  # tolerances


class TrainingCaseError(Exception):
    """A training case that does not say what it needs; the message says what."""


def relative_error(outputs, expected, relative_tolerance, rounded=None):
    """The largest error of a training case, to be held against its relative tolerance.

    A tensor's error is its largest difference as a share of its largest magnitude. A gradient's, of the norm and of the
    dot product, is |difference| less 1e-5 as a share of the norm; it may be 1e-3, and is scaled so that 1e-3 counts as
    the relative tolerance. Norms under 1e-6 count as zeros, so that the slack decides.

    Args:
        outputs, expected: name → tensor, of the same names and shapes.
        relative_tolerance: the case's own.
        rounded: `outputs` in float32 where they are in float64. The published code computed in float32 too, so what its
            rounding moves is not held against a number: as much as it moves this one here, and at most
            `ROUNDING_ALLOWANCE` tolerances. (In unet_training the gradients of two mix factors, which nearly cancel,
            are 4 tolerances from float64 and 20 or more from float32 here.)
    """
    errors = []
    for name, wanted in expected.items():
        got, wanted = _exact(outputs[name]), wanted.to(torch.float64)
        if name == GRADIENTS:
            norm, slack = wanted[:, :1].expand_as(wanted), GRADIENT_SLACK
            tolerance = torch.where(norm < 1e-6, 1e-6, norm) * GRADIENT_TOLERANCE
        else:
            largest, slack = wanted.abs().max(), 0.0
            tolerance = (largest if largest > 0 else torch.ones_like(largest)) * relative_tolerance
        difference = (got - wanted).abs() - slack
        if rounded is not None:
            rounding = (_exact(rounded[name]) - got).abs()
            difference = difference - rounding.minimum(ROUNDING_ALLOWANCE * tolerance)
        errors.append((difference.clamp(min=0) / tolerance).max())
    return relative_tolerance * torch.stack(errors).max().item()  # NaN where any value is


def _exact(tensor):
    return tensor.detach().to("cpu", torch.float64)


def emotion_training(case, inputs, device, dtype):
    """tokens: every 8th; vq_loss, loss; z_gradient; gradients."""
    settings = {name: value for name, value in case.config.items() if name not in ("retrieval", "masked", "seed")}
    module = built_module("emotion_model", settings, device, dtype)
    with _trainable(module), torch.enable_grad():
        z = inputs["z"].to(device, dtype).requires_grad_()
        masked = torch.tensor(case.config.get("masked") or [False] * len(z), device=device)
        tokens, vq_loss = module.training_tokens(z, case.config["retrieval"], masked)
        loss = 100 * (tokens * _weights(case, 1, tokens)).mean() + vq_loss
        found = _gradients(loss, case, module, {"z_gradient": z})
    return {"tokens": tokens[:, ::8], "vq_loss": vq_loss[None], "loss": loss[None], **found}


def unet_training(case, inputs, device, dtype):
    """loss; the gradients of sample, clip_embeds, audio_tokens, emotion_tokens and pose_features; gradients."""
    module = built_module("unet", case.config["unet"], device, dtype)
    names = ("sample", "clip_embeds", "audio_tokens", "emotion_tokens", "pose_features")
    with _trainable(module), torch.enable_grad():
        given = {name: inputs[name].to(device, dtype).requires_grad_() for name in names}
        batch = len(given["sample"])
        tokens = {name: given[name].unflatten(0, (batch, -1)) for name in names[1:4]}
        prediction = module(
            given["sample"],
            inputs["timestep"].to(device),
            encoder_hidden_states=tokens["clip_embeds"],
            added_time_ids=inputs["added_time_ids"].to(device),
            audio_tokens=tokens["audio_tokens"],
            emotion_tokens=tokens["emotion_tokens"],
            pose_features=given["pose_features"],
            face_mask=inputs["face_mask"].to(device, dtype),
            audio_scale=case.config.get("audio_scale", 1.0),
            emotion_scale=case.config.get("emotion_scale", 1.0),
            return_dict=False,
        )[0]
        loss = 100 * (prediction * _weights(case, 5, prediction)).mean()
        found = _gradients(loss, case, module, {f"{name}_gradient": tensor for name, tensor in given.items()})
    return {"sample": prediction, "loss": loss[None], **found}


TRAINING_KINDS = {"emotion_training": emotion_training, "unet_training": unet_training}
SENSITIVE = ("unet_training",)  # norms over two nearly equal numbers multiply float32's rounding


class _trainable:
    """The module's parameters take gradients inside the block."""

    def __init__(self, module):
        self.module = module

    def __enter__(self):
        self.module.requires_grad_(True)

    def __exit__(self, *exception):
        self.module.requires_grad_(False)


def _weights(case, offset, like):
    seed = case.config.get("seed")
    if seed is None:
        told = re.search(r"\bseed = (\d+)", case.note)
        if told is None:
            raise TrainingCaseError("neither config nor the note says the seed")
        seed = int(told[1])
    weights = np.random.RandomState(seed + offset).standard_normal(tuple(like.shape))
    return torch.from_numpy(weights.astype(np.float32)).to(like)


def _gradients(loss, case, module, inputs):
    """The gradients of the inputs, by name, and `gradients`, a row for each of the case's parameters."""
    parameters = dict(module.named_parameters())
    unknown = [name for name in case.parameters if name not in parameters]
    if unknown:
        raise TrainingCaseError(f"this model has no parameter {unknown[0]}")
    wanted = [*inputs.values(), *(parameters[name] for name in case.parameters)]
    found = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    rows = []
    for name, gradient in zip(case.parameters, found[len(inputs) :]):
        gradient = _exact(gradient)
        probe = filled_tensor(f"probe.{name}", gradient.shape).to(torch.float64)
        rows.append([gradient.norm().item(), (gradient * probe).sum().item()])
    return dict(zip(inputs, found)) | {GRADIENTS: torch.tensor(rows, dtype=torch.float64)}
