"""Holds this implementation to golden cases: inputs and outputs computed with the published code.

A case is a folder with ``case.json`` (kind, config, tolerance: the largest absolute error allowed in float32; for the
kinds of `verify_training`, relative_tolerance) and ``tensors.safetensors`` (``in.*`` and ``out.*``). Weights are not
stored; both sides fill them from the names of the published files, see `filling.filled_tensor`.
"""

import json
import math
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError, reason
from .filling import built_module, fill, filled_tensor
from .verify_training import SENSITIVE, TRAINING_KINDS, TrainingCaseError, relative_error

__all__ = ["fill", "filled_tensor", "find_cases", "largest_error", "verify_case"]

CASE_FILE = "case.json"
TENSORS_FILE = "tensors.safetensors"
DTYPES = ("float32", "float16", "bfloat16")

PASSED, FAILED, NOT_JUDGED = "pass", "FAIL", "not judged"

# Sampling is a long chain: guidance, and norms over two nearly equal numbers at the 1×1 grid of a small UNet, multiply
# float32 rounding a thousandfold, differently on every machine. A float32 result up to so many tolerances off therefore
# still passes when the same computation in float64 is within the tolerance; the row says so.
ROUNDING_ALLOWANCE = 5


@dataclass(frozen=True)
class Result:
    """How one case went.

    Attributes:
        error: the largest absolute error over all expected tensors, for a case of training the relative one; None if
            it could not be computed.
        verdict: one of PASSED, FAILED, NOT_JUDGED.
        reason: what the numbers do not say.
    """

    error: float | None
    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class Case:
    """A golden case that has been found; `problem` says why its case.json cannot be used, if so.

    `parameters` and `note` are those of a case of training, whose `tolerance` is relative.
    """

    folder: Path
    name: str
    kind: str = "?"
    config: dict | None = None
    tolerance: float | None = None
    problem: str = ""
    parameters: tuple[str, ...] = ()
    note: str = ""


class CaseError(Exception):
    """A case that cannot be read or computed; the message says why."""


def find_cases(folders):
    """All cases below the folders, in the order of their paths.

    Raises:
        InputError: a folder that does not exist or holds no case.
    """
    cases = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder: name one that holds golden cases.")
        found = sorted(Path(path) for path, _, files in os.walk(folder) if CASE_FILE in files or TENSORS_FILE in files)
        if not found:
            raise InputError(f"{folder} holds no golden case: a case is a folder with {CASE_FILE} and {TENSORS_FILE}.")
        for path in found:
            name = path.resolve().name if path == folder else path.relative_to(folder).as_posix()
            cases.setdefault(path.resolve(), _read_case(path, name))
    return list(cases.values())


def _read_case(folder, name):
    try:
        case = json.loads((folder / CASE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Case(folder, name, problem=f"{CASE_FILE} is missing")
    except (OSError, ValueError) as error:
        return Case(folder, name, problem=f"{CASE_FILE} cannot be read: {reason(error)}")
    if not isinstance(case, dict) or not isinstance(case.get("kind"), str):
        return Case(folder, name, problem=f"{CASE_FILE} names no kind")
    kind, config = case["kind"], case.get("config", {})
    relative = "relative_" if kind in TRAINING_KINDS else ""
    tolerance = case.get(f"{relative}tolerance")
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not (number and math.isfinite(tolerance) and tolerance >= 0):
        return Case(folder, name, kind, problem=f"{CASE_FILE} gives no usable {relative}tolerance ({tolerance!r})")
    if not isinstance(config, dict):
        return Case(folder, name, kind, tolerance=tolerance, problem=f"config in {CASE_FILE} is not an object")
    parameters, note = case.get("parameters", []), case.get("note", "")
    if not isinstance(parameters, list) or not isinstance(note, str):
        return Case(folder, name, kind, tolerance=tolerance, problem=f"{CASE_FILE} lists no parameters, or no note")
    return Case(folder, name, kind, config, tolerance, "", tuple(map(str, parameters)), note)


def verify_case(case, device="cpu", dtype=torch.float32):
    """Compute a case and compare. Never raises for what is wrong with the case: the result says it.

    Args:
        case: a `Case`.
        device, dtype: where and in which precision the models compute. Only float32 is judged against the tolerance;
            output that is missing, of another shape or not finite fails in every precision.
    """
    if case.problem:
        return Result(None, FAILED, case.problem)
    try:
        if case.kind not in _KINDS | TRAINING_KINDS:
            raise CaseError(f"unknown kind; known are {', '.join(sorted(_KINDS | TRAINING_KINDS))}")
        inputs, expected = _read_tensors(case.folder / TENSORS_FILE)
        if case.kind in TRAINING_KINDS:
            return _training_result(case, inputs, expected, device, dtype)
        error = _error(case, inputs, expected, device, dtype)
        if not math.isfinite(error):
            return Result(error, FAILED, "not finite")
        if dtype != torch.float32:
            return Result(error, NOT_JUDGED)
        if error <= case.tolerance:
            return Result(error, PASSED)
        if case.kind == "sampling" and error <= ROUNDING_ALLOWANCE * case.tolerance:
            exact = _error(case, inputs, expected, _precise(device), torch.float64)
            if exact <= case.tolerance:
                return Result(error, PASSED, f"{exact:.3g} in float64, the rest is float32 rounding")
        return Result(error, FAILED)
    except (CaseError, TrainingCaseError) as problem:
        return Result(None, FAILED, str(problem))
    except Exception as problem:  # whatever a case asks for, the other cases still run
        return Result(None, FAILED, f"{type(problem).__name__}: {reason(problem)}")


def _precise(device):
    """Where float64 is computed; MPS has none."""
    return device if torch.device(device).type == "cuda" else "cpu"


def _training_result(case, inputs, expected, device, dtype):
    """Where float32 falls outside in a sensitive kind, float64 decides: float32 rounds otherwise on every machine."""

    def compute(device, dtype):
        with _plain_arithmetic():
            outputs = TRAINING_KINDS[case.kind](case, inputs, torch.device(device), dtype)
        _check_shapes(outputs, expected)
        return outputs

    outputs = compute(device, dtype)
    error = relative_error(outputs, expected, case.tolerance)
    if not math.isfinite(error):
        return Result(error, FAILED, "not finite")
    if dtype != torch.float32:
        return Result(error, NOT_JUDGED)
    if error <= case.tolerance:
        return Result(error, PASSED)
    if case.kind not in SENSITIVE:
        return Result(error, FAILED)
    exact = compute(_precise(device), torch.float64)
    exact_error = relative_error(exact, expected, case.tolerance, rounded=outputs)
    if exact_error <= case.tolerance:
        return Result(error, PASSED, f"{exact_error:.3g} in float64 beyond float32's rounding")
    return Result(error, FAILED, f"{exact_error:.3g} in float64")


def _error(case, inputs, expected, device, dtype):
    with torch.no_grad(), _plain_arithmetic():
        outputs = _KINDS[case.kind](case.config, inputs, torch.device(device), dtype)
        return largest_error(outputs, expected)


def largest_error(outputs, expected):
    """The largest absolute difference over all expected tensors; NaN if either side holds one.

    Raises:
        CaseError: an expected tensor that was not computed, or has another shape.
    """
    _check_shapes(outputs, expected)
    errors = []
    for name, wanted in expected.items():
        got = outputs[name].detach().to("cpu", torch.float64)
        errors.append((got - wanted.to(torch.float64)).abs().flatten())
    return torch.cat(errors).max().item()  # torch's max is NaN where any value is


def _check_shapes(outputs, expected):
    for name, wanted in expected.items():
        if name not in outputs:
            raise CaseError(f"out.{name} is expected, but this kind computes {', '.join(sorted(outputs))}")
        if outputs[name].shape != wanted.shape:
            raise CaseError(
                f"out.{name} has shape {tuple(wanted.shape)}, but {tuple(outputs[name].shape)} was computed"
            )
        if not wanted.numel():
            raise CaseError(f"out.{name} is empty")


def _read_tensors(path):
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise CaseError(f"{TENSORS_FILE} is missing") from None
    except Exception as error:
        raise CaseError(f"{TENSORS_FILE} cannot be read: {reason(error)}") from error
    expected = {name.removeprefix("out."): tensor for name, tensor in tensors.items() if name.startswith("out.")}
    if not expected:
        raise CaseError(f"{TENSORS_FILE} holds no expected tensor (out.*)")
    return _Inputs({n.removeprefix("in."): t for n, t in tensors.items() if n.startswith("in.")}), expected


class _Inputs(dict):
    def __missing__(self, name):
        raise CaseError(f"in.{name} is missing in {TENSORS_FILE}")


@contextmanager
def _plain_arithmetic():
    """One thread, so that the CPU's numbers do not depend on its cores; on CUDA no TF32: float32 means float32."""
    threads = torch.get_num_threads()
    matmul, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolutions


def _audio_windows(config, inputs, device, dtype):
    """stats: mean and standard deviation of each frame's window; picked: some frames' windows, every 4th channel."""
    from ..model.audio import SAMPLE_RATE, audio_features, resample

    encoder = built_module("whisper", config.get("whisper", {}), device, dtype)
    waveform = resample(inputs["waveform"], config.get("sampling_rate", SAMPLE_RATE))
    windows = audio_features(encoder, waveform, published=True)
    flat = windows.flatten(1)
    return {
        "stats": torch.stack([flat.mean(dim=1), flat.std(dim=1)], dim=1),
        "picked": windows[config.get("picks", [])][..., ::4],
    }


def _audio_projection(config, inputs, device, dtype):
    """tokens, uncond_tokens: every 8th token."""
    windows = inputs["windows"]
    _, window, layers, width = windows.shape
    module = built_module(
        "audio_projection", {"window": window, "layers": layers, "width": width, **config}, device, dtype
    )
    return {
        "tokens": module(windows.to(device, dtype))[:, ::8],
        "uncond_tokens": module.unconditional()[0, ::8],
    }


def _emotion_tokens(config, inputs, device, dtype):
    """tokens of a mean; code: index of its nearest code."""
    from ..emotion.options import BankOptions

    config = dict(config)
    bank = BankOptions(mode="nearest" if config.pop("retrieval", False) else "full")
    mean = inputs["mu"].to(device, dtype)
    module = built_module("emotion_model", config, device, dtype)
    tokens = module.tokens(mean, bank)
    return {
        "tokens": tokens[0] if len(mean) == 1 else tokens,
        "uncond_tokens": module.unconditional(bank)[0],
        "code": module.nearest_code(mean),
    }


def _emotion_classifier(config, inputs, device, dtype):
    module = built_module("emotion_model", config, device, dtype)
    return {"logits": module.classify(inputs["features"].to(device, dtype))}


def _face_crop(config, inputs, device, dtype):
    """boxes: x1 y1 x2 y2, width and height of the image, margin."""
    from ..media.portrait import face_crop

    rows = inputs["boxes"].tolist()
    crops = [face_crop(row[:4], (int(row[4]), int(row[5])), row[6]) for row in rows]
    return {"crops": torch.tensor(crops, dtype=torch.float64)}


def _face_mask(config, inputs, device, dtype):
    """boxes: x1 y1 x2 y2, width and height of the image, short side.

    sizes: resized width, height. stats of the resized mask: mean, column and row of its first maximum, height and width
    where it exceeds 0.5.
    """
    from ..media.portrait import MASK_AREA, draw_face_mask, resized_size

    sizes, stats = [], []
    for *box, width, height, short_side in inputs["boxes"].tolist():
        image_size = int(width), int(height)
        size = resized_size(*image_size, short_side)
        mask = draw_face_mask(box, image_size, size, config.get("area", MASK_AREA))
        row, column = np.unravel_index(mask.argmax(), mask.shape)
        face = mask > 0.5
        sizes.append(size)
        stats.append((mask.mean(dtype=np.float64), column, row, face.any(axis=1).sum(), face.any(axis=0).sum()))
    return {
        "sizes": torch.tensor(sizes, dtype=torch.float64),
        "stats": torch.tensor(np.array(stats, dtype=np.float64)),
    }


def _pose_guider(config, inputs, device, dtype):
    mask = inputs["face_mask"]
    features = built_module("pose_guider", config, device, dtype)(mask.to(device, dtype))
    return {"features": features[0] if len(mask) == 1 else features}


def _unet(config, inputs, device, dtype):
    """Tokens are stored as (batch × frames, tokens, width)."""
    module = built_module("unet", config["unet"], device, dtype)
    sample = inputs["sample"].to(device, dtype)

    def tokens(name):
        return inputs[name].to(device, dtype).unflatten(0, (len(sample), -1))

    prediction = module(
        sample,
        inputs["timestep"].to(device),
        encoder_hidden_states=tokens("clip_embeds"),
        added_time_ids=inputs["added_time_ids"].to(device),
        audio_tokens=tokens("audio_tokens"),
        emotion_tokens=tokens("emotion_tokens"),
        pose_features=inputs["pose_features"].to(device, dtype),
        face_mask=inputs["face_mask"].to(device, dtype),
        audio_scale=config.get("audio_scale", 1.0),
        emotion_scale=config.get("emotion_scale", 1.0),
        return_dict=False,
    )[0]
    return {"sample": prediction}


def _sampling(config, inputs, device, dtype):
    """A whole clip from given noise; the noise holds one window more than the latents."""
    from diffusers import EulerDiscreteScheduler

    from ..model.settings import SCHEDULER_CONFIG
    from ..sampling.conditions import Conditions
    from ..sampling.loop import sample

    unet = built_module("unet", config["unet"], device, dtype)
    pose_guider = built_module("pose_guider", config["pose_guider"], device, dtype)
    face_mask = inputs["face_mask"].to(device, dtype)
    names = ("clip_embeds", "audio_tokens", "uncond_audio_tokens", "emotion_tokens", "uncond_emotion_tokens")
    conditions = Conditions(
        image_latent=inputs["image_latent"].to(device),
        face_mask=face_mask,
        pose_features=pose_guider(face_mask),
        fps=config["fps"],
        motion_bucket_id=config["motion_bucket_id"],
        expression_bucket_id=config["motion_bucket_id_exp"],
        **{name: inputs[name].to(device, dtype) for name in names},
    )
    scheduler = EulerDiscreteScheduler.from_config(SCHEDULER_CONFIG)
    latents = sample(
        unet,
        conditions,
        inputs["noise"][0].to(device),
        scheduler,
        num_inference_steps=config["num_inference_steps"],
        reference_scale=config["ref_scale"],
        emotion_scale=config["emo_scale"],
        window=config["window"],
        overlap=config["overlap"],
        shift=config["shift"],
    )
    return {"latents": latents[None], "sigmas": scheduler.sigmas, "timesteps": scheduler.timesteps}


_KINDS = {
    "audio_windows": _audio_windows,
    "audio_projection": _audio_projection,
    "emotion_tokens": _emotion_tokens,
    "emotion_classifier": _emotion_classifier,
    "face_crop": _face_crop,
    "face_mask": _face_mask,
    "pose_guider": _pose_guider,
    "unet": _unet,
    "sampling": _sampling,
}
