"""What the chosen savings gain and what they cost: `python tests/tools/savings.py`, with ComfyUI in $COMFYUI_PATH.

A small untrained model with seeded weights samples a 3 s clip inside ComfyUI: in 25 Euler steps, and with each saving.
Printed are the pictures that went through the UNet, which sampling takes nearly all its time for, and how far the
latents are from the plain ones: their mean distance, as a share of the latents' mean size. The share of pictures holds
for any weights where it follows from sigmas or steps alone (guidance in an interval or reused, windows, speeds); what
EasyCache and LazyCache skip, and all distances, depend on the weights, so that trained ones will give others.

`--checkpoint DIR`, of a checkpoint that was trained on drawn people, makes the clips of `dicetalk evaluate` inside
ComfyUI instead, plainly and with each cache, and prints what the reader of drawn people reads off them.
"""

import argparse
import os
import sys
from pathlib import Path

import _paths  # noqa: F401
from comfy_process import load_pack
from project import ROOT

STEPS, FRAMES, LATENT = 25, 38, (4, 4, 4)
GUIDANCE = ((1000.0, 0.5), (100.0, 0.0), (100.0, 0.5), (20.0, 0.5))
CACHES = "EasyCache", "LazyCache"
THRESHOLDS = (0.02, 0.05, 0.1, 0.2)
LEFT_OUT = ({"guidance_reuse": 2}, {"guidance_reuse": 3}, {"deep_cache": 2}, {"deep_cache": 3}, {"clamp_windows": True})


def main():
    comfyui = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    if not (comfyui / "main.py").is_file():
        sys.exit(f"There is no ComfyUI in {comfyui}: set COMFYUI_PATH to its folder.")
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", metavar="DIR", help="measure this one, on drawn people")
    parser.add_argument("--people", type=int, default=1, help="each with eight emotions (default: 1)")
    parser.add_argument("--frames", type=int, default=25, help="longest clip (default: 25)")
    parser.add_argument("--steps", type=int, default=STEPS, help="default: 25")
    args = parser.parse_args()
    sys.argv[1:] = []  # ComfyUI reads the command line when it is imported
    pack = load_pack(comfyui, ROOT)

    from small_model import SmallModel

    if args.checkpoint:
        print("Measured on drawn people, not on the released weights.\n")
        print("| saving | pictures through the UNet | emotion | mouth | identity |\n|---|---|---|---|---|")
        for name, pictures, *shares in of_checkpoint(SmallModel(pack), **vars(args)):
            print(f"| {name} | {pictures:.0%} | {shares[0]:.0%} | {shares[1]:.2f} | {shares[2]:.0%} |", flush=True)
        return
    rows = measure(SmallModel(pack))
    print("| saving | pictures through the UNet | distance |\n|---|---|---|")
    for name, pictures, distance in rows:
        print(f"| {name} | {pictures:.0%} | {distance:.1%} |")


def measure(small, steps=STEPS, frames=FRAMES, thresholds=THRESHOLDS):
    """(name, share of the pictures, distance) of each saving. A picture whose inner levels are reused counts whole."""
    import torch

    conditions = small.conditions(frames, latent=LATENT)
    speed, schedules = (small.module(f"dicetalk.sampling.{name}") for name in ("speed", "schedules"))

    def run(patcher, interval=None, sampler="euler", schedule="karras", steps=steps, **left_out):
        patcher = patcher.clone()
        pictures = _count_pictures(patcher)
        guider = small.guider(patcher, conditions, guidance_interval=interval, savings=speed.Savings(**left_out))
        levels = schedules.sigmas_of(schedule, steps)
        sigmas = small.sigmas(guider, steps=steps) if levels is None else torch.tensor(levels)
        samples, _ = small.sample(guider, sampler, sigmas=sigmas)
        return samples, sum(pictures)

    plain, all_pictures = run(small.patcher)
    runs = {f"guidance_from {high:g}, guidance_to {low:g}": {"interval": (low, high)} for high, low in GUIDANCE}
    for cache in CACHES:
        runs |= {
            f"{cache}, threshold {value:g}": {"patcher": _cached(small.patcher, cache, value)} for value in thresholds
        }
    for left_out in LEFT_OUT:
        runs |= {" ".join(map(str, pair)): left_out for pair in left_out.items()}
    fewer = {"sampler": "dpmpp_2m", "schedule": speed.ALIGN_YOUR_STEPS, "steps": 10}
    runs |= {"10 steps, align_your_steps, dpmpp_2m": fewer}
    for name, chosen in speed.SPEEDS.items():
        chosen = {key: value for key, value in chosen.items() if not key.startswith("guidance_") or "reuse" in key}
        runs |= {f"speed {name}": chosen} if name != speed.PUBLISHED else {}
    rows = []
    for name, options in runs.items():
        samples, pictures = run(**{"patcher": small.patcher} | options)
        distance = float((samples - plain).abs().mean() / plain.abs().mean())
        rows.append((name, pictures / all_pictures, distance))
    return rows


def of_checkpoint(small, checkpoint, people=1, frames=25, steps=STEPS, thresholds=THRESHOLDS):
    """Yields (name, share of the pictures, emotion accuracy, mouth's correlation, identity) plainly and by cache."""
    clips, goals = small.module("dicetalk.measure.drawn_clips"), small.module("dicetalk.measure.goals")
    found = small.module("dicetalk.checkpoints.finding").resolve_checkpoint(checkpoint)
    pipeline = small.module("dicetalk.pipeline").DiceTalkPipeline.from_checkpoint(found)
    priors = small.module("dicetalk.checkpoints.priors").load_priors(found.folder("emotions"))
    scale = small.module("dicetalk.model.settings").LATENT_SCALE
    reader = small.module("dicetalk.measure.reader").read_reader()
    patcher, counted = small.load(found.file("unet")), []

    class ComfyStudio(clips.Studio):
        def sample(self, conditions, noise, sampling):
            own = self.patcher.clone()
            pictures = _count_pictures(own)
            guider = small.guider(own, conditions, (sampling.reference_scale, sampling.emotion_scale))
            samples, _ = small.sample(guider, sigmas=small.sigmas(guider, steps=sampling.steps))
            counted.append(sum(pictures))
            return samples.float() * scale

    studio = ComfyStudio(pipeline, reader, frames=frames)
    asked, among, plain = goals.plain_clips(priors, goals.crowd_of(people)), goals.crowd_of(50), None
    caches = [(f"{cache}, threshold {value:g}", cache, value) for cache in CACHES for value in thresholds]
    for name, cache, threshold in [("none", None, 0), *caches]:
        studio.patcher = _cached(patcher, cache, threshold) if cache else patcher
        counted.clear()
        results = goals.make_all(studio, {"": asked}, clips.Sampling(steps))[""]
        plain = plain or sum(counted)
        right = [each.named == each.asked.about["emotion"] for each in results]
        same = [studio.nearest(each, among)[0] == each.asked.person for each in results]
        lips = [each.lips() for each in results]
        yield name, sum(counted) / plain, *(sum(each) / len(results) for each in (right, lips, same))


def _cached(patcher, cache, threshold):
    import comfy_extras.nodes_easycache as nodes_easycache

    return getattr(nodes_easycache, f"{cache}Node").execute(patcher, threshold, 0.15, 0.95, False).result[0]


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
