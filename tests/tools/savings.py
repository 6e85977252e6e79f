"""What the chosen savings gain and what they cost: `python tests/tools/savings.py`, with ComfyUI in $COMFYUI_PATH.

A small untrained model with seeded weights samples a 3 s clip in 25 Euler steps inside ComfyUI, plainly and with each
saving. Printed are the pictures that went through the UNet, which sampling takes nearly all its time for, and how far
the latents are from the plain ones: their mean distance, as a share of the latents' mean size. The share of pictures
holds for any weights where it follows from sigmas alone (guidance in an interval); what the caches skip, and all
distances, depend on the weights, so that trained ones will give others.
"""

import os
import sys
from pathlib import Path

import _paths  # noqa: F401
from comfy_process import load_pack
from project import ROOT

STEPS, FRAMES, LATENT = 25, 38, (4, 4, 4)
GUIDANCE = ((1000.0, 0.5), (100.0, 0.0), (100.0, 0.5), (20.0, 0.5))
THRESHOLDS = (0.02, 0.05, 0.1, 0.2)


def main():
    comfyui = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    if not (comfyui / "main.py").is_file():
        sys.exit(f"There is no ComfyUI in {comfyui}: set COMFYUI_PATH to its folder.")
    sys.argv[1:] = []  # ComfyUI reads the command line when it is imported
    pack = load_pack(comfyui, ROOT)

    from small_model import SmallModel

    rows = measure(SmallModel(pack))
    print("| saving | pictures through the UNet | distance |\n|---|---|---|")
    for name, pictures, distance in rows:
        print(f"| {name} | {pictures:.0%} | {distance:.1%} |")


def measure(small, steps=STEPS, frames=FRAMES):
    """(name, share of the pictures, distance) of each saving."""
    conditions = small.conditions(frames, latent=LATENT)

    def run(patcher, interval=None):
        patcher = patcher.clone()
        pictures = _count_pictures(patcher)
        guider = small.guider(patcher, conditions, guidance_interval=interval)
        samples, _ = small.sample(guider, sigmas=small.sigmas(guider, steps=steps))
        return samples, sum(pictures)

    plain, all_pictures = run(small.patcher)
    runs = {f"guidance_from {high:g}, guidance_to {low:g}": (small.patcher, (low, high)) for high, low in GUIDANCE}
    for cache in ("EasyCache", "LazyCache"):
        runs |= {f"{cache}, threshold {value:g}": (_cached(small, cache, value), None) for value in THRESHOLDS}
    rows = []
    for name, arguments in runs.items():
        samples, pictures = run(*arguments)
        distance = float((samples - plain).abs().mean() / plain.abs().mean())
        rows.append((name, pictures / all_pictures, distance))
    return rows


def _cached(small, cache, threshold):
    import comfy_extras.nodes_easycache as nodes_easycache

    return getattr(nodes_easycache, f"{cache}Node").execute(small.patcher, threshold, 0.15, 0.95, False).result[0]


def _count_pictures(patcher):
    """A list that gets the size of every batch that reaches the UNet behind the wrappers that are there."""
    import comfy.patcher_extension

    pictures = []

    def count(executor, x, *args, **kwargs):
        pictures.append(len(x))
        return executor(x, *args, **kwargs)

    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "count", count)
    return pictures


if __name__ == "__main__":
    main()
