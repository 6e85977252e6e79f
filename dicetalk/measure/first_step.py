"""The first step of a UNet whose blocks compile: with nothing on the disk, and in the next process."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..model.compiling import CACHE_VARIABLE, compile_regions, graphs
from ..sampling.counting import COMPILED, DICETALK, REGIONS, Workload
from .bench import build, sharing, timed

TARGETS = {"cold": 30.0, "cached": 10.0}  # seconds of the first step
GAIN_TARGET = 0.95  # of what compiling the whole network gains
_CHILD = "import sys; from dicetalk.measure.first_step import print_first_step; print_first_step(*sys.argv[1:])"


def first_steps(workload: Workload, device) -> dict[str, dict[str, Any]]:
    """The first step in two processes, one after the other, which share a folder of compiled graphs that starts empty.

    Returns:
        {"cold": of the first process, "cached": of the second}, each {"seconds"; "graphs": how many there are, one that
        tries whether PyTorch compiles among them; "compiled": how many of them were not on the disk; "error": largest
        difference from the step that is not compiled, as a share of its largest value}.

    Raises:
        InputError: PyTorch cannot compile for the device, or there is not enough memory.
    """
    options = asdict(workload) | {"dtype": str(workload.dtype).removeprefix("torch.")}
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_CACHE_DIR"}
        environment |= {CACHE_VARIABLE: folder, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, "-c", _CHILD, json.dumps(options), str(device)]
        return {name: _measured(command, environment) for name in TARGETS}


def _measured(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"The first step with compiled blocks failed ({reason}): leave out --compile.")
    return json.loads(done.stdout.strip().splitlines()[-1])


@torch.no_grad()
def print_first_step(options: str, device: str) -> None:
    """What a process of `first_steps` does; prints JSON."""
    read = json.loads(options)
    workload = Workload(**read | {"dtype": getattr(torch, read["dtype"])})
    network, inputs = build(workload, device)[DICETALK], workload.inputs(DICETALK, device)
    compiled, found = sharing(DICETALK, workload, network), []

    def step():
        compile_regions(compiled, workload.frames)
        found.append(compiled(**inputs, return_dict=False)[0])

    report = {"seconds": timed(step, device)} | dict(zip(("graphs", "compiled"), graphs()))
    expected = network(**inputs, return_dict=False)[0]
    report["error"] = ((found[0] - expected).abs().max() / expected.abs().max()).item()
    print(json.dumps(report))


def share_of_gain(networks: dict[str, dict[str, Any]]) -> float | None:
    """What compiling blocks gains in a step, as a share of what compiling the whole gains; None where that is nothing.

    Args:
        networks: of the report of `bench`.
    """
    eager, whole, blocks = (networks[kind]["seconds"] for kind in (DICETALK, COMPILED, REGIONS))
    return (eager - blocks) / (eager - whole) if whole < eager else None


def table(steps: dict[str, dict[str, Any]], share: float | None) -> str:
    """What was measured beside its targets, as text."""
    cold, cached = steps["cold"], steps["cached"]

    def at_most(name):
        return f"≤ {TARGETS[name]:.0f}"

    lines = [
        f"{'Blocks compiled each on its own':52}{'measured':>9}{'target':>9}",
        f"{'first step, nothing on the disk, s':52}{cold['seconds']:9.1f}{at_most('cold'):>9}",
        f"{'first step of the next process, s':52}{cached['seconds']:9.1f}{at_most('cached'):>9}",
        f"{'the second as a share of the first':52}{cached['seconds'] / cold['seconds']:9.2f}",
        f"{'graphs':52}{cold['graphs']:9}",
        f"{'graphs that the next process compiled':52}{cached['compiled']:9}{'0':>9}",
        f"{'largest difference from the step not compiled':52}{cached['error']:9.1e}",
    ]
    found = "-" if share is None else f"{share:.2f}"
    lines.append(f"{'gain of a step, as a share of that of the whole':52}{found:>9}{f'≥ {GAIN_TARGET}':>9}")
    return "\n".join(lines)
