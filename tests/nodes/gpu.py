"""What the model costs on a CUDA GPU inside ComfyUI: `python tests/nodes/gpu.py`, with ComfyUI in $COMFYUI_PATH.

An untrained UNet of the released size (3.3 GB, written to a temporary folder) denoises in ComfyUI under its memory
modes, weight types and nodes. Each row is a process of its own, started as ComfyUI is started with these options:

- `window step`: median seconds of a window step (three branches of 25 frames), in the clip where there is one;
- `clip`: seconds that a clip of `--seconds` takes in `--steps` Euler steps;
- `peak`: most that PyTorch had allocated at a time, weights included; `card`: most that was taken of the card,
  with what PyTorch keeps for later, without what CUDA itself takes. Where the name ends in GB, another process had
  taken all but that much of the card before;
- `distance`: mean distance of a short run's latents from those of the first row, as a share of their mean size.

Further tables: real peaks beside what ComfyUI is told to plan for; what repeated runs leave behind; the VAE's work.
Distances depend on the weights, so that trained ones will give others; times and memory do not.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATIC = ("--disable-dynamic-vram",)
SHORT_FRAMES, SHORT_STEPS = 12, 2
GB = 1e9


@dataclass(frozen=True)
class Row:
    """One process: ComfyUI's options, the loader's weight type, a node on the MODEL, and how much of the card is free.

    Attributes:
        clip: whether a clip is sampled beside the short run.
        seconds, steps: of that clip, None for those of the command line.
        then: further measurements, out of "planned", "runs" and "decode".
    """

    name: str
    options: tuple = STATIC
    weight_dtype: str = "fp16"
    node: str = ""
    card: float | None = None
    clip: bool = False
    seconds: float | None = None
    steps: int | None = None
    then: tuple = ()


ROWS = (
    Row("fp16", clip=True),
    Row("fp16, dynamic VRAM", options=(), clip=True),
    Row("bf16", weight_dtype="bf16"),
    Row("fp32", weight_dtype="fp32"),
    Row("fp8", weight_dtype="fp8_e4m3fn", clip=True),
    Row("fp8 fast", weight_dtype="fp8_e4m3fn_fast", clip=True),
    Row("fp16, TorchCompileModel", node="TorchCompileModel", clip=True),
    Row("fp16, EasyCache 0.1", node="EasyCache", clip=True),
    Row("fp16, --novram", options=("--novram",)),
    Row("fp16, dynamic VRAM, 8 GB", options=(), card=8.0),
    Row("fp16, dynamic VRAM, 6 GB", options=(), card=6.0),
    Row("fp16, dynamic VRAM, 4 GB", options=(), card=4.0),
    Row("fp16, 8 GB", card=8.0),
    Row("fp16, 6 GB", card=6.0),
    Row("fp16, 4 GB", card=4.0),
    Row("planned", then=("planned",)),
    Row("runs", then=("runs",)),
    Row("runs, dynamic VRAM", options=(), then=("runs",)),
    Row("decode, 8 GB", then=("decode",), card=8.0),
    Row("fp16, ten minutes, 8 GB", options=(), card=8.0, clip=True, seconds=600, steps=1),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these, by the beginnings of their names")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="all but these")
    parser.add_argument("--size", type=int, default=512, help="pixels, of both sides (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="of the clip (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=25, help="of the clip (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=20, help="one after the other (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=600, help="seconds that a row may take (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures here too")
    parser.add_argument("--work", type=Path, help="folder for the weights (default: a temporary one)")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the row that this process measures
    args = parser.parse_args()
    if args.one:
        return print(
            json.dumps(measure(Row(**json.loads(args.one)), args.size, args.seconds, args.steps, args.runs, args.work))
        )

    import torch

    if not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU here.")
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        work.mkdir(exist_ok=True)
        write_unet(work / "unet.safetensors")
        named = [row for row in ROWS if not args.rows or row.name.startswith(tuple(args.rows))]
        figures = []
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}", flush=True)
        for row in named:
            if row.name.startswith(tuple(args.without)):
                continue
            figures.append({"row": row.name} | in_process(row, args, work))
            print(json.dumps(figures[-1]), flush=True)
            if args.json:
                args.json.write_text(json.dumps(figures, indent=1))
    print(tables(figures))


def in_process(row, args, work):
    """The figures of a row, from a process of its own; `error` in place of what did not come."""
    import torch

    command = [sys.executable, __file__, "--one", json.dumps(asdict(row)), "--work", work]
    for name in ("size", "seconds", "steps", "runs"):
        command += [f"--{name}", getattr(args, name)]
    taken = None
    if row.card:
        free = torch.cuda.mem_get_info()[0]
        taken = torch.empty(max(int(free - row.card * GB), 0), dtype=torch.uint8, device="cuda")
    start = time.monotonic()
    try:
        run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=args.limit)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {args.limit:g} s"}
    finally:
        del taken
        torch.cuda.empty_cache()
    whole = {"whole_seconds": round(time.monotonic() - start, 1)}
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    if run.returncode or not lines:
        print(run.stderr, file=sys.stderr)
        return {"error": (run.stderr.strip().splitlines() or ["?"])[-1]} | whole
    return json.loads(lines[-1]) | whole


def write_unet(path, config={}, device="cuda"):
    """An untrained UNet in half precision; that of the released size without a `config`."""
    if path.is_file():
        return
    sys.path[:0] = [str(ROOT)]
    import torch
    from safetensors.torch import save_file

    from dicetalk.bench import DICETALK, Workload, build

    torch.manual_seed(0)
    network = build(Workload(dtype=torch.float16, network=config or None), device)[DICETALK]
    save_file({name: tensor.cpu() for name, tensor in network.state_dict().items()}, path)
    del network
    torch.cuda.empty_cache()


def start_comfyui(options):
    """Import ComfyUI with these options of its main.py, and the pack."""
    comfyui = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    if not (comfyui / "main.py").is_file():
        sys.exit(f"There is no ComfyUI in {comfyui}: set COMFYUI_PATH to its folder.")
    sys.argv[1:] = options
    sys.path.insert(0, str(comfyui))
    import comfy.options

    comfy.options.enable_args_parsing()
    from comfy.cli_args import args, enables_dynamic_vram

    dynamic = enables_dynamic_vram()
    if dynamic:  # as main.py does
        import comfy_aimdo.control

        comfy_aimdo.control.init(simple_vram_headroom=None, nvml_pressure=True)
    import comfy.memory_management
    import comfy.model_management
    import comfy.model_patcher

    if dynamic:
        devices = [(device.index, 0) for device in comfy.model_management.get_all_torch_devices()]
        if not comfy_aimdo.control.init_devices(devices):
            sys.exit("comfy-aimdo does not work here.")
        comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
        comfy.memory_management.aimdo_enabled = True
    from comfy_process import load_pack

    return load_pack(comfyui, ROOT, cpu=args.cpu)


class Card:
    """What is taken of a GPU; without one everything is None."""

    def __init__(self, device):
        import torch

        self.cuda = torch.cuda if device.type == "cuda" else None
        self.before = self.taken() if self.cuda else None  # by others, and CUDA itself in this process
        self.most = 0
        self.reset()

    def taken(self):
        free, total = self.cuda.mem_get_info()
        return total - free

    def look(self):
        """To be called wherever the most may be taken; waits for the GPU."""
        if self.cuda:
            self.cuda.synchronize()
            self.most = max(self.most, self.taken() - self.before)

    def reset(self):
        if self.cuda:
            self.cuda.synchronize()
            self.cuda.reset_peak_memory_stats()
            self.allocated_before = self.cuda.memory_allocated()

    def figures(self):
        if not self.cuda:
            return {"peak": None, "card": None}
        return {"peak": self.cuda.max_memory_allocated(), "card": self.most, "context": self.before}


class Bench:
    """A loaded MODEL, and runs of it on random conditions."""

    def __init__(self, pack, row, unet_file):
        import torch
        from small_model import SmallModel

        self.module = SmallModel.module.__get__(self)
        self.pack = pack
        start = time.monotonic()
        weight_types = self.module("nodes.loader")._WEIGHT_TYPES
        self.patcher = self.module("nodes.model").load_unet(str(unet_file), weight_types[row.weight_dtype])
        self.load_seconds = time.monotonic() - start
        self.patcher = with_node(self.patcher, row.node)
        self.device = self.patcher.load_device
        self.card = Card(self.device)
        self.seconds = []  # of each window step
        kind, bench = self.module("nodes.guider").DiceTalkGuider, self

        class Guider(kind):
            def _denoise(self, *args):
                bench.card.look()
                start = time.perf_counter()
                parts = super()._denoise(*args)
                bench.card.look()
                bench.seconds.append(time.perf_counter() - start)
                return parts

        self.kind, self.torch = Guider, torch

    def conditions(self, frames, side, seed=0):
        config = self.patcher.model.diffusion_model.config
        width, channels, latent = config["cross_attention_dim"], config["block_out_channels"][0], side // 8
        random = self.torch.Generator().manual_seed(seed)

        def normal(*shape):
            return self.torch.randn(shape, generator=random)

        return self.module("dicetalk.sampling").Conditions(
            image_latent=normal(1, 4, latent, latent),
            clip_embeds=normal(1, width),
            audio_tokens=normal(frames, 32, width),
            uncond_audio_tokens=normal(1, 32, width),
            emotion_tokens=normal(1, 32, width),
            uncond_emotion_tokens=normal(1, 32, width),
            face_mask=self.torch.ones(1, 1, side, side),
            pose_features=normal(1, channels, latent, latent),
        )

    def run(self, frames, steps, side, seed=0):
        """Latents (frames, 4, h, w), and the seconds that sampling took."""
        import comfy.samplers
        from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced

        conditions = self.conditions(frames, side, seed)
        guider = self.kind(self.patcher, conditions, 3.0, 6.0)
        sampling = guider.model_patcher.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, "karras", steps)
        latent = {"samples": conditions.image_latent.repeat(frames, 1, 1, 1)}
        self.seconds.clear()
        start = time.perf_counter()
        with self.torch.inference_mode():
            out, _ = SamplerCustomAdvanced.execute(
                Noise_RandomNoise(seed), guider, comfy.samplers.sampler_object("euler"), sigmas, latent
            ).result
        return out["samples"].float().cpu(), time.perf_counter() - start

    def planned(self, sides):
        """Real peaks of a window step beside what ComfyUI is told."""
        rows = []
        for side in sides:
            self.card.reset()
            self.run(SHORT_FRAMES, 1, side)
            required = self.patcher.model.memory_required([75, 4, side // 8, side // 8])
            peak = self.card.cuda and self.card.cuda.max_memory_allocated() - self.card.allocated_before
            rows.append({"side": side, "peak": peak, "planned": required})
        return rows

    def repeated(self, runs, side):
        """Bytes left behind by runs that differ: allocated on the GPU, taken of the card, and of this process."""
        rows = []
        for number in range(runs):
            self.run(SHORT_FRAMES + number, 1, side, seed=number)
            gc.collect()
            allocated = self.card.cuda and self.card.cuda.memory_allocated()
            rows.append({"allocated": allocated, "resident": resident()})
        return rows


def with_node(patcher, node):
    """The MODEL with one of ComfyUI's nodes behind it."""
    if node == "TorchCompileModel":
        from comfy_extras.nodes_torch_compile import TorchCompileModel

        return TorchCompileModel.execute(patcher, "inductor").result[0]
    if node == "EasyCache":
        from comfy_extras.nodes_easycache import EasyCacheNode

        return EasyCacheNode.execute(patcher, 0.1, 0.15, 0.95, False).result[0]
    return patcher


def resident():
    """Bytes of RAM that this process has."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def measure(row, size, seconds, steps, runs, work):
    """All figures of a row, in this process."""
    import torch

    pack = start_comfyui(list(row.options))
    torch.manual_seed(0)
    if "decode" in row.then:
        return decode(pack, size, seconds, work)
    bench = Bench(pack, row, work / "unet.safetensors")
    figures = {"load_seconds": bench.load_seconds, "weight_bytes": bench.patcher.model_size()}
    short, figures["first_run_seconds"] = bench.run(SHORT_FRAMES, SHORT_STEPS, size)
    _, figures["second_run_seconds"] = bench.run(SHORT_FRAMES, SHORT_STEPS, size)
    if row.clip:
        frames = round(12.5 * (row.seconds or seconds))
        bench.card.reset()
        _, figures["clip_seconds"] = bench.run(frames, row.steps or steps, size)
        figures |= {"frames": frames, "steps": row.steps or steps, "window_steps": len(bench.seconds)}
        figures["latent_bytes"] = (frames + 25) * 4 * (size // 8) ** 2 * 4
    figures["step_seconds"] = statistics.median(bench.seconds)
    reference = work / "reference.pt"
    if not reference.is_file():
        torch.save(short, reference)
    expected = torch.load(reference)
    figures["distance"] = float((short - expected).abs().mean() / expected.abs().mean())
    figures |= bench.card.figures()
    if "planned" in row.then:
        figures["planned"] = bench.planned([max(size // 128, 1) * 64, size, size * 3 // 128 * 64])
    if "runs" in row.then:
        figures["runs"] = bench.repeated(runs, size)
    return figures


def decode(pack, size, seconds, work):
    """Peak memory of DICE-Talk Video's decoding, of a clip and of one four times as long."""
    import importlib

    import comfy.model_management
    import comfy.sd
    import comfy.utils
    import comfy_files
    import torch

    path = work / "vae.safetensors"
    if not path.is_file():
        comfy_files.write_svd_vae(path)
    vae = comfy.sd.VAE(comfy.utils.load_torch_file(str(path)))
    kind = importlib.import_module(f"{pack.__name__}.nodes.video").LatentVideo
    rows = []
    for length in (seconds, 4 * seconds):
        latents = torch.randn(round(12.5 * length), 4, size // 8, size // 8)
        card = Card(vae.device)
        start = time.perf_counter()
        with torch.inference_mode():
            frames = 0
            for _ in kind(latents, vae, 12.5)._frames():
                frames += 1
                if frames % 10 == 0:
                    card.look()
        rows.append({"frames": frames, "seconds": time.perf_counter() - start} | card.figures())
    return {"dtype": str(vae.vae_dtype), "decode": rows}


def tables(figures):
    """All figures as Markdown."""

    def number(value, form="{:.2f}", scale=1):
        return "" if value is None else form.format(value / scale)

    text = ["", "| row | window step, s | clip, s | peak, GB | card, GB | distance |", "|---|---|---|---|---|---|"]
    for row in figures:
        if "error" in row:
            text.append(f"| {row['row']} | {row['error']} | | | | |")
        elif "step_seconds" in row:
            step, clip = number(row["step_seconds"], "{:.3f}"), number(row.get("clip_seconds"), "{:.1f}")
            peak, card = number(row["peak"], scale=GB), number(row["card"], scale=GB)
            text.append(f"| {row['row']} | {step} | {clip} | {peak} | {card} | {row['distance']:.2%} |")
    for row in figures:
        if "planned" in row:
            text += ["", "| side, pixels | peak, GB | planned, GB | planned / peak |", "|---|---|---|---|"]
            for each in row["planned"]:
                peak, planned = each["peak"], each["planned"]
                share = number(peak and planned / peak)
                text.append(f"| {each['side']} | {number(peak, scale=GB)} | {number(planned, scale=GB)} | {share} |")
        if "runs" in row:
            second, last = row["runs"][1], row["runs"][-1]
            for what in ("allocated", "resident"):
                values = [number(each[what], "{:.1f}", 1e6) for each in (second, last)]
                text += ["", f"{row['row']}, {what}, MB: {values[0]} after the second run, {values[1]} after the last"]
        if "decode" in row:
            text += ["", "| decoding, frames | seconds | peak, GB | card, GB |", "|---|---|---|---|"]
            for each in row["decode"]:
                peak, card = number(each["peak"], scale=GB), number(each["card"], scale=GB)
                text.append(f"| {each['frames']} | {each['seconds']:.1f} | {peak} | {card} |")
    return "\n".join(text)


if __name__ == "__main__":
    main()
