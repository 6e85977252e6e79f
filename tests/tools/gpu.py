"""What the model costs on a CUDA GPU inside ComfyUI: `python tests/tools/gpu.py`, with ComfyUI in $COMFYUI_PATH.

An untrained UNet of the released size (3.3 GB, written to a temporary folder) denoises in ComfyUI under its memory
modes, weight types and nodes, in one process for each set of options that ComfyUI is started with. In the table:

- `window step`: median seconds of a window step (three branches of 25 frames, unless the name says one);
- `clip`: seconds that a clip of `--seconds` takes in `--steps` Euler steps, where one was sampled;
- `10 s`: window steps of a clip of 10 s in 25 steps, times the seconds of one; not for EasyCache, which skips some;
- `peak`: most that PyTorch had allocated at a time; with dynamic VRAM, which keeps weights elsewhere, without them;
- `card`: most that this process had of the card before or after a window step, with what PyTorch keeps for later and
  CUDA itself takes. Where the name ends in GB, another process has taken all but that much of it;
- `distance`: mean distance of a short run's latents from those of the first row, as a share of their mean size.

Further tables: real peaks beside what ComfyUI is asked to plan for; what repeated runs leave behind; the VAE's work.
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
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

import _paths  # noqa: F401
from project import ROOT

STATIC, DYNAMIC, NOVRAM = ("--disable-dynamic-vram",), (), ("--novram",)
SHORT_FRAMES, SHORT_STEPS = 12, 2
GB = 1e9


@dataclass(frozen=True)
class Row:
    """ComfyUI's options, the loader's weight type, a node on the MODEL, and how much of the card is free, in GB.

    Attributes:
        clip: whether a clip is sampled beside the short runs.
        seconds, steps: of that clip, None for those of the command line.
        scales: of guidance; with 1 and 1 a window step has one branch.
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
    scales: tuple = (3.0, 6.0)
    then: tuple = ()


ROWS = (
    Row("fp16", clip=True, then=("planned",)),
    Row("bf16", weight_dtype="bf16"),
    Row("fp32", weight_dtype="fp32"),
    Row("fp8", weight_dtype="fp8_e4m3fn"),
    Row("fp8 fast", weight_dtype="fp8_e4m3fn_fast"),
    Row("EasyCache 0.1", node="EasyCache", clip=True),
    Row("TorchCompileModel", node="TorchCompileModel"),
    Row("TorchCompileModel, 4 GB", node="TorchCompileModel", card=4.0),
    Row("8 GB", card=8.0),
    Row("6 GB", card=6.0),
    Row("4 GB", card=4.0),
    Row("one branch, 600 s, static, 8 GB", card=8.0, clip=True, seconds=600, steps=1, scales=(1.0, 1.0)),
    Row("decode, 8 GB", then=("decode",), card=8.0),
    Row("dynamic VRAM", DYNAMIC, then=("runs",)),
    Row("dynamic VRAM, 8 GB", DYNAMIC, card=8.0),
    Row("dynamic VRAM, 6 GB", DYNAMIC, card=6.0),
    Row("dynamic VRAM, 4 GB", DYNAMIC, card=4.0),
    Row("one branch, 10 s, 8 GB", DYNAMIC, card=8.0, clip=True, seconds=10, steps=1, scales=(1.0, 1.0)),
    Row("one branch, 600 s, 8 GB", DYNAMIC, card=8.0, clip=True, seconds=600, steps=1, scales=(1.0, 1.0)),
    Row("novram", NOVRAM),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", metavar="NAME", default=[row.name for row in ROWS], help="only these")
    parser.add_argument("--size", type=int, default=512, help="pixels, of both sides (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="of the clip (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=25, help="of the clip (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=20, help="one after the other (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for a process (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures here too")
    parser.add_argument("--work", type=Path, help="folder for the weights (default: a temporary one)")
    parser.add_argument("--here", help=argparse.SUPPRESS)  # rows for this process to measure
    args = parser.parse_args()
    if args.here:
        return measure_all([Row(**row) for row in json.loads(args.here)], args)

    import torch

    if not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU here.")
    if unknown := set(args.rows) - {row.name for row in ROWS}:
        parser.error(f"there is no row {', '.join(unknown)}; there are: {', '.join(row.name for row in ROWS)}")
    with tempfile.TemporaryDirectory() as folder:
        args.work = args.work or Path(folder)
        args.work.mkdir(exist_ok=True)
        write_unet(args.work / "unet.safetensors")
        (args.work / "reference.pt").unlink(missing_ok=True)
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}", flush=True)
        figures = []
        rows = [row for row in ROWS if row.name in args.rows]
        for options in dict.fromkeys(row.options for row in rows):
            for row in in_process([row for row in rows if row.options == options], args):
                print(json.dumps(row), flush=True)
                figures.append(row)
                if args.json:
                    args.json.write_text(json.dumps(figures, indent=1))
    print(tables(figures))


def in_process(rows, args):
    """The figures of each row, all from one process, while this one holds what is not to be free of the card."""
    import torch

    command = [sys.executable, __file__, "--here", json.dumps([asdict(row) for row in rows])]
    for name in ("size", "seconds", "steps", "runs", "work"):
        command += [f"--{name}", str(getattr(args, name))]
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    held, done = None, 0
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(args.limit, process.kill)
    timer.start()
    for line in process.stdout:
        if not line.startswith("{"):
            continue
        told = json.loads(line)
        if "free" in told:
            del held
            held = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if told["free"]:
                held = torch.empty(max(int(free - told["free"] * GB), 0), dtype=torch.uint8, device="cuda")
            process.stdin.write(f"{free - (0 if held is None else len(held))}\n")
            process.stdin.flush()
        else:
            done += 1
            yield told
    timer.cancel()
    del held
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # or the next process would find the card as full as the last one had it
    for row in rows[done:]:
        yield {"row": row.name, "error": f"the process ended with {process.wait()}"}


def write_unet(path, config={}, device="cuda"):
    """An untrained UNet in half precision; that of the released size without a `config`."""
    if path.is_file():
        return
    import torch
    from safetensors.torch import save_file

    from dicetalk.measure.bench import build
    from dicetalk.sampling.counting import DICETALK, Workload

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
    import comfy.utils

    comfy.utils.set_progress_bar_enabled(False)
    if dynamic:
        devices = [(device.index, 0) for device in comfy.model_management.get_all_torch_devices()]
        if not comfy_aimdo.control.init_devices(devices):
            sys.exit("comfy-aimdo does not work here.")
        comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
        comfy.memory_management.aimdo_enabled = True
    from comfy_process import load_pack

    return load_pack(comfyui, ROOT, cpu=args.cpu)


class Card:
    """What this process takes of a GPU of which `available` bytes were free before it; without a GPU all is None."""

    def __init__(self, device, available):
        import torch

        self.cuda, self.available, self.most = torch.cuda if device.type == "cuda" else None, available, 0
        self.reset()

    def look(self):
        """To be called wherever the most may be taken; waits for the GPU."""
        if self.cuda:
            self.cuda.synchronize()
            self.most = max(self.most, self.available - self.cuda.mem_get_info()[0])

    def reset(self):
        if self.cuda:
            self.cuda.synchronize()
            self.cuda.reset_peak_memory_stats()
            self.allocated_before = self.cuda.memory_allocated()

    def figures(self):
        if not self.cuda:
            return {"peak": None, "card": None}
        return {"peak": self.cuda.max_memory_allocated(), "card": self.most}


class Bench:
    """A loaded MODEL, and runs of it on random conditions."""

    def __init__(self, pack, row, unet_file, available):
        import torch
        from small_model import SmallModel

        self.module = SmallModel.module.__get__(self)
        self.pack, self.scales = pack, row.scales
        start = time.monotonic()
        weight_types = self.module("nodes.loader")._WEIGHT_TYPES
        self.patcher = self.module("nodes.sampling.model").load_unet(str(unet_file), weight_types[row.weight_dtype])
        self.load_seconds = time.monotonic() - start
        self.patcher = with_node(self.patcher, row.node)
        self.device = self.patcher.load_device
        self.card = Card(self.device, available)
        self.seconds = []  # of each window step
        kind, bench = self.module("nodes.sampling.guider").DiceTalkGuider, self

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

        return self.module("dicetalk.sampling.conditions").Conditions(
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
        guider = self.kind(self.patcher, conditions, *self.scales)
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
        """Real peaks of a window step beside what ComfyUI is asked to plan for."""
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


def measure_all(rows, args):
    """Measure the rows in this process; prints before each how much of the card is to be free, and waits for that."""
    pack = start_comfyui(list(rows[0].options))
    import comfy.model_management

    for row in rows:
        comfy.model_management.unload_all_models()
        gc.collect()
        comfy.model_management.soft_empty_cache()
        print(json.dumps({"free": row.card}), flush=True)
        available = int(sys.stdin.readline())
        start = time.monotonic()
        try:
            figures = measure(pack, row, args, available)
        except Exception as error:  # the next row may fare better
            traceback.print_exc()
            figures = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"row": row.name, "whole_seconds": time.monotonic() - start} | figures), flush=True)


def measure(pack, row, args, available):
    """All figures of a row, in this process."""
    import torch

    torch.manual_seed(0)
    if "decode" in row.then:
        return decode(pack, args, available)
    bench, size = Bench(pack, row, args.work / "unet.safetensors", available), args.size
    figures = {"load_seconds": bench.load_seconds, "weight_bytes": bench.patcher.model_size()}
    short, figures["first_run_seconds"] = bench.run(SHORT_FRAMES, SHORT_STEPS, size)
    _, figures["second_run_seconds"] = bench.run(SHORT_FRAMES, SHORT_STEPS, size)
    figures["loaded_bytes"] = bench.patcher.loaded_size()
    if row.clip:
        frames = round(12.5 * (row.seconds or args.seconds))
        bench.card.reset()
        _, figures["clip_seconds"] = bench.run(frames, row.steps or args.steps, size)
        figures |= {"frames": frames, "steps": row.steps or args.steps, "window_steps": len(bench.seconds)}
        figures["latent_bytes"] = (frames + 25) * 4 * (size // 8) ** 2 * 4
    figures["step_seconds"] = statistics.median(bench.seconds)
    if row.node != "EasyCache":
        windows = sum(map(len, bench.module("dicetalk.sampling.windows").window_plan(125, 25)))
        figures["ten_seconds"] = windows * figures["step_seconds"]
    if tuple(row.scales) == Row.scales:
        reference = args.work / "reference.pt"
        if not reference.is_file():
            torch.save(short, reference)
        expected = torch.load(reference)
        figures["distance"] = float((short - expected).abs().mean() / expected.abs().mean())
    figures |= bench.card.figures()
    if "planned" in row.then:
        figures["planned"] = bench.planned([max(size // 128, 1) * 64, size, size * 3 // 128 * 64])
    if "runs" in row.then:
        figures["runs"] = bench.repeated(args.runs, size)
    return figures


def decode(pack, args, available):
    """Peak memory of DICE-Talk Video's decoding, of a clip and of one four times as long."""
    import importlib

    import comfy.model_management
    import comfy.sd
    import comfy.utils
    import comfy_files
    import torch

    path = args.work / "vae.safetensors"
    if not path.is_file():
        comfy_files.write_svd_vae(path)
    vae = comfy.sd.VAE(comfy.utils.load_torch_file(str(path)))
    kind = importlib.import_module(f"{pack.__name__}.nodes.video").LatentVideo
    rows = []
    for length in (args.seconds, 4 * args.seconds):
        latents = torch.randn(round(12.5 * length), 4, args.size // 8, args.size // 8)
        card = Card(vae.device, available)
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

    text = ["", "| row | window step, s | clip, s | 10 s, s | peak, GB | card, GB | distance |", "|---|" + 6 * "---|"]
    for row in figures:
        if "error" in row:
            text.append(f"| {row['row']} | {row['error']} | | | | | |")
        elif "step_seconds" in row:
            cells = [row["row"], number(row["step_seconds"], "{:.3f}")]
            cells += [number(row.get(name), "{:.1f}") for name in ("clip_seconds", "ten_seconds")]
            cells += [number(row[name], scale=GB) for name in ("peak", "card")]
            text.append(f"| {' | '.join([*cells, number(row.get('distance'), '{:.2%}')])} |")
    for row in figures:
        if "planned" in row:
            text += ["", "| side, pixels | peak, GB | planned, GB | planned / peak |", "|---|---|---|---|"]
            for each in row["planned"]:
                peak, planned = each["peak"], each["planned"]
                share = number(peak and planned / peak)
                text.append(f"| {each['side']} | {number(peak, scale=GB)} | {number(planned, scale=GB)} | {share} |")
        if "runs" in row:
            second, last = row["runs"][:2][-1], row["runs"][-1]
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
