"""The state of a training in a file: weights, their moving average, the optimizer's moments, and the losses so far."""

import json

import torch
from safetensors import SafetensorError, safe_open

from ..errors import InputError, reason
from ..files import write_errors, written_beside

_FORMAT = "dicetalk-training-1"


def save_state(path, run, learning, optimizer, average, step, history) -> None:
    """Keep a training, in place of what the file held.

    Args:
        path: the file, safetensors.
        run: what a training that continues must agree in, JSON's values by name.
        learning: the weights that learn, by name.
        optimizer: theirs.
        average: diffusers' `EMAModel` of them, or None.
        step: how many are done.
        history: of the losses, JSON's values.

    Raises:
        InputError: the disk is full, or the file cannot be written; what it held stays.
    """
    from safetensors.torch import save_file

    tensors = {f"model.{name}": each for name, each in learning.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in moments.items()})
    record = {"run": run, "step": step, "history": history, "ema": None}
    if average is not None:
        kept = average.state_dict()
        tensors.update({f"ema.{number}": each for number, each in enumerate(kept.pop("shadow_params"))})
        record["ema"] = {name: value for name, value in kept.items() if isinstance(value, (int, float, bool))}
    tensors = {name: each.detach().cpu().contiguous() for name, each in tensors.items()}
    metadata = {"format": _FORMAT, "state": json.dumps(record)}
    with written_beside(path) as part, write_errors(path):
        try:
            save_file(tensors, part, metadata)
        except SafetensorError as error:  # the library's own word for what the system says
            raise InputError(
                f"{path} cannot be written ({reason(error)}): make room. The last state is whole."
            ) from error


def load_state(path, run, learning, optimizer, average):
    """Take over what `save_state` kept; arguments as there.

    Returns:
        step, history.

    Raises:
        InputError: the file cannot be read, or is of another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get("state", "null"))
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        was = json.loads(json.dumps(record["run"]))
        now = json.loads(json.dumps(run))
        if differing := [name for name in now if was.get(name) != now[name]]:
            name = differing[0]
            raise InputError(
                f"{path} is of another run: {name} was {was.get(name)!r}, and is {now[name]!r}. Start without "
                "--resume, or as that run was started."
            )
        with torch.no_grad():
            for name, parameter in learning.items():
                parameter.copy_(tensors[f"model.{name}"])
        moments = {}
        for name, tensor in tensors.items():
            kind, number, *rest = name.split(".", 2)
            if kind == "optimizer":
                moments.setdefault(int(number), {})[rest[0]] = tensor
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        if average is not None:
            shadow = [tensors[f"ema.{number}"] for number in range(len(learning))]
            average.load_state_dict({**average.state_dict(), **record["ema"], "shadow_params": shadow})
        return record["step"], record["history"]
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} is no state of a training that can be continued ({reason(error)}).") from error
