"""Where the time of a window step and of decoding goes: milliseconds, operations and bytes by kind of operation.

Times are PyTorch's profiler's: on CUDA those of the kernels that an operation starts, elsewhere those of the operation
itself, without the operations that it calls. Bytes are counted from shapes, see `dicetalk.measure.traffic`.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any, Callable

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ..errors import InputError
from ..sampling.counting import DICETALK, STOCK, Workload, default_dtype
from .bench import build, device_name
from .traffic import TrafficCounter, count_traffic, kind_of

DECODED = 8  # frames that are decoded at once here
STEP, DECODING = "step", "decoding"
COMPARED_RUNS = 2  # of each build, by turns


def profile(call: Callable[[], Any], device) -> dict[str, tuple[float, int]]:
    """{kind: (milliseconds, operations)} of one call, warmed by one before."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    call()
    if on_cuda:
        torch.cuda.synchronize(device)
    with torch.profiler.profile(activities=activities) as profiled:
        call()
        if on_cuda:
            torch.cuda.synchronize(device)
    kinds: dict[str, list] = defaultdict(lambda: [0.0, 0])
    for event in profiled.key_averages():
        microseconds = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        if not event.key.startswith("aten::") or microseconds == 0:
            continue
        kinds[kind_of(event.key)][0] += microseconds / 1000
        kinds[kind_of(event.key)][1] += event.count
    return {kind: (milliseconds, count) for kind, (milliseconds, count) in kinds.items()}


def profile_step(workload: Workload, device) -> dict[str, Any]:
    """Profile one window step of both networks, on random weights that they share.

    Returns:
        {"device", "torch", "dtype", "width", "height", "frames", "tiny", "networks": {"stock" and "dicetalk": {kind:
        {"ms", "operations", "bytes"}}}}.
    """
    networks = {}
    with torch.inference_mode():
        for kind, network in build(workload, device).items():
            call = partial(network, **workload.inputs(kind, device), return_dict=False)
            networks[kind] = _rows(profile(call, device), count_traffic(kind, workload).kinds)
    return _heading(workload, device, workload.frames) | {"networks": networks}


def profile_decoding(workload: Workload, device, frames: int = DECODED) -> dict[str, Any]:
    """Profile the decoding of some frames, by diffusers' decoder and by ours; returned as by `profile_step`."""
    shape = frames, 4, workload.height // 8, workload.width // 8
    networks = {}
    for kind in (STOCK, DICETALK):
        with torch.inference_mode():
            vae = _decoder(kind, workload, device)
            latents = torch.randn(shape, device=device, dtype=workload.dtype)
            times = profile(partial(vae.decode, latents, num_frames=frames), device)
        with FakeTensorMode(), torch.no_grad(), TrafficCounter() as counter:
            _decoder(kind, workload, "cpu").decode(torch.empty(shape, dtype=workload.dtype), num_frames=frames)
        networks[kind] = _rows(times, counter.traffic.kinds)
    return _heading(workload, device, frames) | {"networks": networks}


def _decoder(kind, workload, device):
    from diffusers import AutoencoderKLTemporalDecoder

    from ..checkpoints.tiny import CHANNELS
    from ..model.frames import use_frame_blocks

    channels = CHANNELS if workload.tiny else (128, 256, 512, 512)
    with default_dtype(workload.dtype), torch.device(device):
        vae = AutoencoderKLTemporalDecoder(
            block_out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            layers_per_block=1 if workload.tiny else 2,
        )
    vae.eval().requires_grad_(False)
    return use_frame_blocks(vae) if kind == DICETALK else vae


def _heading(workload, device, frames):
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "dtype": str(workload.dtype).removeprefix("torch."),
        "width": workload.width,
        "height": workload.height,
        "frames": frames,
        "tiny": workload.tiny,
    }


def _rows(times, traffic):
    rows = {}
    for kind in {*times, *traffic}:
        milliseconds, operations = times.get(kind, (0.0, 0))
        rows[kind] = {"ms": milliseconds, "operations": operations, "bytes": traffic.get(kind, (0, 0))[1]}
    return rows


def table(title: str, report: dict[str, Any]) -> str:
    """A profile as text, the slowest kind of ours first."""
    stock, ours = (report["networks"][kind] for kind in (STOCK, DICETALK))
    nothing = {"ms": 0.0, "operations": 0, "bytes": 0}
    heads = f"{'ms':>10}{'ops':>7}{'GB':>9}"
    lines = [
        f"{title}: {report['frames']} frames at {report['width']}×{report['height']}, {report['dtype']}, "
        f"{report['device']}, PyTorch {report['torch']}",
        f"{'':18}{'stock':>26}{'DICE-Talk':>26}",
        f"{'':18}{heads}{heads}",
    ]
    kinds = sorted({*stock, *ours}, key=lambda kind: -ours.get(kind, nothing)["ms"])
    for kind in kinds:
        lines.append(f"{kind:18}" + "".join(_cells(rows.get(kind, nothing)) for rows in (stock, ours)))
    sums = [{name: sum(row[name] for row in rows.values()) for name in nothing} for rows in (stock, ours)]
    lines.append(f"{'all':18}" + "".join(map(_cells, sums)))
    return "\n".join(lines)


def _cells(row):
    return f"{row['ms']:10.1f}{row['operations']:7}{row['bytes'] / 1e9:9.3f}"


# Runs in a process whose `dicetalk` is that of the build to measure; uses only what every build has.
_TIMED = """
import json, sys, time
import torch
from dicetalk.measure import bench
from dicetalk.sampling.counting import DICETALK, Workload
options = json.loads(sys.argv[1])
options["dtype"] = getattr(torch, options["dtype"])
device, repeats = options.pop("device"), options.pop("repeats")
workload = Workload(**options)
with torch.inference_mode():
    network, inputs = bench.build(workload, device)[DICETALK], workload.inputs(DICETALK, device)
    step = lambda: network(**inputs, return_dict=False)
    step()
    print(json.dumps([bench.timed(step, device) for _ in range(repeats)]))
"""


def compare(revision: str, workload: Workload, device, repeats: int, on_run=lambda: None) -> dict[str, Any]:
    """Time a window step of this build and of an older one of this project, by turns, each in processes of its own.

    Args:
        revision: of the clone that this package is in, as git takes it.
        repeats: timed steps of each process, at least 1.
        on_run: called after each of the 2 × `COMPARED_RUNS` processes.

    Returns:
        {"device", "dtype", …, "revision", "this" and "other": {"seconds", "all_seconds"}, "ratio"}; medians.

    Raises:
        InputError: there is no clone, or no such revision, or it cannot be measured.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        raise InputError("--compare needs a clone of the project with its history: this is an installed package.")
    archive = subprocess.run(["git", "archive", revision, "dicetalk"], cwd=root, capture_output=True)
    if archive.returncode != 0:
        raise InputError(f"--compare {revision}: the clone in {root} has no such revision with this package in it.")
    options = {name: getattr(workload, name) for name in ("width", "height", "frames", "tiny")}
    options |= {"dtype": str(workload.dtype).removeprefix("torch."), "device": str(device), "repeats": max(repeats, 1)}
    seconds: dict[str, list[float]] = {"this": [], "other": []}
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder)  # what git has just written
        for _ in range(COMPARED_RUNS):
            for name, place in (("other", folder), ("this", str(root))):
                seconds[name] += _timed(revision if name == "other" else "this build", place, options)
                on_run()
    report = _heading(workload, device, workload.frames) | {"revision": revision}
    for name, each in seconds.items():
        report[name] = {"seconds": statistics.median(each), "all_seconds": each}
    return report | {"ratio": report["this"]["seconds"] / report["other"]["seconds"]}


def _timed(name, place, options):
    environment = {**os.environ, "PYTHONPATH": place}
    command = [sys.executable, "-c", _TIMED, json.dumps(options)]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"--compare: {name} cannot be measured ({reason}): choose another revision.")
    return json.loads(done.stdout.strip().splitlines()[-1])
