"""What one window step costs, beside diffusers' stock Stable Video Diffusion UNet on the same weights."""

import gc
import math
import os
import platform
import statistics
import time
from functools import partial
from typing import Any

import torch

from ..emotion.options import FPS
from ..errors import InputError
from ..memory import free_memory
from ..model.compiling import compile_regions
from ..sampling.counting import COMPILED, DICETALK, REGIONS, STOCK, Counts, Workload, build_network, count
from ..sampling.guidance import BRANCHES
from ..sampling.windows import window_plan

STEPS = 25
CLIP_SECONDS = 10


def build(workload: Workload, device) -> dict[str, torch.nn.Module]:
    """Both networks on the device, with random weights that they share."""
    unet = build_network(DICETALK, workload, "meta").to_empty(device=device)
    for name, parameter in unet.named_parameters():
        if parameter.ndim > 1:
            bound = math.sqrt(3 / parameter[0].numel())
            parameter.uniform_(-bound, bound)
        elif name.endswith("mix_factor"):
            parameter.fill_(0.5)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return {STOCK: sharing(STOCK, workload, unet), DICETALK: unet}


def sharing(kind, workload: Workload, unet) -> torch.nn.Module:
    """A further network with the weights of one."""
    network = build_network(kind, workload, "meta")
    missing = network.load_state_dict(unet.state_dict(), strict=False, assign=True).missing_keys
    assert not missing, missing
    return network.requires_grad_(False)


def matrix_rate(device, dtype, repeats=5) -> float:
    """Operations per second of a large matrix product; the median of some."""
    size = 8192 if torch.device(device).type == "cuda" else 2048
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    a @ b
    return 2 * size**3 / statistics.median(timed(lambda: a @ b, device) for _ in range(repeats))


def timed(function, device) -> float:
    """Seconds until the device has done it."""
    _synchronize(device)
    start = time.perf_counter()
    function()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device):
    backend = getattr(torch, torch.device(device).type, None)
    if hasattr(backend, "synchronize"):
        backend.synchronize()


def what_fits(workload: Workload, share: float) -> str:
    """Options for a step of at most this share of the activations, which grow as frames × pixels do."""
    options = []
    frames = math.floor(workload.frames * share)
    if frames >= 1:
        options.append(f"--frames {frames}")
    width, height = (math.floor(side * math.sqrt(share)) // 64 * 64 for side in (workload.width, workload.height))
    if min(width, height) >= 64:
        options.append(f"--size {width}" if width == height else f"--size {width}x{height}")
    if workload.dtype == torch.float32 and share >= 0.5:
        options.append("--dtype float16 or bfloat16")
    return "; ".join(options) or "only --tiny"


def check_memory(workload: Workload, counts: dict[str, Counts], free: int | None) -> None:
    """Raise InputError, saying what would fit, when the step would not."""
    weights, peak = counts[DICETALK].weight_bytes, max(each.peak_bytes for each in counts.values())
    if free is None or weights + 1.1 * peak <= free:
        return
    share = (free - weights) / (1.1 * peak)
    fits = what_fits(workload, share) if share > 0 else "a narrower --dtype, or --tiny"
    raise InputError(
        f"This step needs {(weights + 1.1 * peak) / 1e9:.1f} GB ({weights / 1e9:.1f} of them weights) and "
        f"{free / 1e9:.1f} GB are free. What would fit: {fits}."
    )


def measure(networks, workload, device, repeats, on_run=lambda: None) -> dict[str, dict]:
    """Time each network on the workload, warmed, by turns so that all meet the same other load.

    Returns:
        {kind: {"seconds": [...], "peak_bytes": int or None}}; peaks are measured on CUDA only.
    """
    inputs = {kind: workload.inputs(kind, device) for kind in networks}
    on_cuda = torch.device(device).type == "cuda"
    measured: dict[str, dict[str, Any]] = {kind: {"seconds": [], "peak_bytes": None} for kind in networks}
    for repeat in range(1 + repeats):
        for kind, network in networks.items():
            gc.collect()
            if on_cuda:
                before = torch.cuda.memory_allocated(device)
                torch.cuda.reset_peak_memory_stats(device)
            seconds = timed(partial(network, **inputs[kind], return_dict=False), device)
            if repeat > 0:
                measured[kind]["seconds"].append(seconds)
                if on_cuda:
                    peak = torch.cuda.max_memory_allocated(device) - before
                    measured[kind]["peak_bytes"] = max(peak, measured[kind]["peak_bytes"] or 0)
            on_run()
    return measured


def windows_of_clip(seconds: float, frames: int) -> int:
    """Windows denoised for a clip of this length, over all steps."""
    return sum(len(step) for step in window_plan(round(seconds * FPS), STEPS, window=frames))


def bench(workload, device, repeats=3, compiled=False, on_counted=lambda counts, rate: None, on_run=lambda: None):
    """Count, then time, one window step of both networks.

    Args:
        repeats: timed runs of each network after one that warms it; 0 counts only.
        compiled: time `torch.compile`'s versions of ours too: of the whole network, and of each of its blocks.
        on_counted: called with the counts of each network and the matrix rate, before anything long begins.
        on_run: called after each run of a network.

    Returns:
        A dict that goes into JSON as it is; times in seconds, sizes in bytes, None for what was not measured.

    Raises:
        InputError: there is not enough memory.
    """
    counts = {kind: count(kind, workload) for kind in (STOCK, DICETALK)}
    if repeats:
        check_memory(workload, counts, free_memory(device))
    rate = matrix_rate(device, workload.dtype) if repeats else None
    on_counted(counts, rate)

    measured = {}
    if repeats:
        try:
            with torch.inference_mode(not compiled), torch.no_grad():
                networks = build(workload, device)
                if compiled:
                    networks[COMPILED] = torch.compile(networks[DICETALK], fullgraph=True)
                    networks[REGIONS] = compile_regions(
                        sharing(DICETALK, workload, networks[DICETALK]), workload.frames
                    )
                measured = measure(networks, workload, device, repeats, on_run)
        except torch.OutOfMemoryError:
            raise InputError(
                f"The device ran out of memory at {workload.width}×{workload.height} × {workload.frames} frames. "
                f"What might fit: {what_fits(workload, 0.5)}."
            ) from None
    report = {
        "device": device_name(device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads() if torch.device(device).type == "cpu" else None,
        "dtype": str(workload.dtype).removeprefix("torch."),
        "width": workload.width,
        "height": workload.height,
        "branches": len(BRANCHES),
        "frames": workload.frames,
        "tiny": workload.tiny,
        "repeats": repeats,
        "steps": STEPS,
        "matrix_flops_per_second": rate,
        "weight_bytes": counts[DICETALK].weight_bytes,
        "networks": {},
    }
    for kind in (STOCK, DICETALK) + (COMPILED, REGIONS) * compiled:
        report["networks"][kind] = _figures(kind, workload, counts.get(kind), measured.get(kind), counts, rate)
    report["ratios"] = {
        kind: {
            name: _ratio(figures[name], report["networks"][STOCK][name])
            for name in ("seconds", "flops", "peak_activation_bytes", "counted_activation_bytes")
        }
        for kind, figures in report["networks"].items()
        if kind != STOCK
    }
    return report


def _figures(kind, workload, counted, measured, counts, rate):
    flops = counts[STOCK if kind == STOCK else DICETALK].flops
    seconds = statistics.median(measured["seconds"]) if measured else None
    return {
        "seconds": seconds,
        "all_seconds": measured["seconds"] if measured else [],
        "flops": flops,
        "matrix_rate_share": flops / seconds / rate if seconds else None,
        "peak_activation_bytes": measured["peak_bytes"] if measured else None,
        "counted_activation_bytes": counted.peak_bytes if counted else None,
        "seconds_per_video_second": seconds and seconds * STEPS * FPS / workload.frames,
        "clip_seconds": CLIP_SECONDS,
        "seconds_per_clip": seconds and seconds * windows_of_clip(CLIP_SECONDS, workload.frames),
    }


def _ratio(value, base):
    return value / base if value is not None and base else None


def device_name(device) -> str:
    """What a reader knows the device by."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        if names:
            return f"{names[0]}, {torch.get_num_threads()} threads"
    return f"{device} ({platform.processor() or platform.machine()})"
