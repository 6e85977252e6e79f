"""Peak memory of decoding and writing clips of several lengths: `python tests/tools/streaming_memory.py 10 600`.

Each length runs in a process of its own, a copy of one that has loaded everything: one row each, in ComfyUI (`--door
node`, COMFYUI_PATH has to be set) or as the command line does (`--door pipeline`: by its `rendering.write`, with sound
from a file). The decoder is replaced by one that merely enlarges the latents, and in place of the INTERP_MODEL one that
takes means, so that the pictures can be large enough for those of a long clip to show if they were held: beside the
peak is what they would take. `--keep` holds those of the last clip on purpose.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import traceback
import wave
from pathlib import Path
from types import SimpleNamespace

import _paths  # noqa: F401
from project import ROOT

RATE = 16000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="+")
    parser.add_argument("--door", choices=("node", "pipeline"), default="node")
    parser.add_argument("--side", type=int, default=64, help="pixels (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="hold every frame of the last clip until it is written")
    parser.add_argument("--here", action="store_true", help="print a line of JSON for each length")
    args = parser.parse_args()
    if args.here:
        return measure_each(args)
    rows = peaks(args.seconds, args.door, args.side, args.keep)
    print("seconds  frames  inputs, MB  peak, MB  beyond the inputs, MB  to the first  all frames, MB")
    for row in rows:
        beyond = row["peak"] - row["inputs"]
        share = beyond / (rows[0]["peak"] - rows[0]["inputs"])
        print(
            f"{row['seconds']:7g}  {row['frames']:6}  {row['inputs'] / 1e6:10.1f}  {row['peak'] / 1e6:8.0f}  "
            f"{beyond / 1e6:21.0f}  {share:12.3f}  {row['whole'] / 1e6:14.0f}"
        )


def peaks(lengths, door, side, keep=False):
    """Clips of these lengths, each in a process of its own; `keep` holds the frames of the last one.

    Returns:
        One dict each: seconds, frames written, bytes of the inputs (latents and sound), of all decoded frames as
        float32 (`whole`), and of the process at its peak.
    """
    command = [sys.executable, __file__, *map(str, lengths), "--here", "--door", door, "--side", str(side)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command + ["--keep"] * keep, capture_output=True, text=True, env=environment)
    if run.returncode:
        raise RuntimeError(run.stderr)
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


def measure_each(args):
    """Load what all need, and measure each length in a copy of this process, whose peak begins with what is held."""
    import torch

    torch.set_num_threads(1)  # a copy has no other threads
    with tempfile.TemporaryDirectory() as folder:
        through = {"node": through_node, "pipeline": through_pipeline}[args.door](Path(folder))
        for number, seconds in enumerate(args.seconds, start=1):
            held = [] if args.keep and number == len(args.seconds) else None
            if not (child := os.fork()):
                code = 1
                try:
                    print(json.dumps(measure(through, seconds, args.side, held)), flush=True)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
                sys.exit(f"{seconds:g} s could not be measured.")


def measure(through, seconds, side, held):
    import torch

    latents = torch.randn(1, 4, side // 8, side // 8).repeat(round(12.5 * seconds), 1, 1, 1)
    sound = torch.rand(1, 1, round(seconds * RATE)) - 0.5
    frames = through(latents, sound, held)
    inputs = (latents.numel() + sound.numel()) * 4
    whole = len(latents) * side * side * 3 * 4
    return {"seconds": seconds, "frames": frames, "inputs": inputs, "whole": whole, "peak": peak()}


def peak():
    """Bytes of this process at its peak; getrusage's figure begins with that of the process which started this one."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def enlarged(latents):
    """(n, 4, h, w) → (n, 3, 8h, 8w), about -1..1."""
    return latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3) / 3


def passed(frames, held):
    """The frames as they come, all kept in `held` unless it is None."""
    for frame in frames:
        if held is not None:
            held.append(frame)
        yield frame


def through_node(folder):
    """A function that writes a clip from latents and sound by DICE-Talk Video, and returns how many frames it has."""
    from comfy_process import load_pack

    comfyui = Path(os.environ["COMFYUI_PATH"])
    load_pack(comfyui, ROOT)
    sys.path.insert(0, str(comfyui))  # its modules named `nodes` and `comfy_extras`
    import comfy.model_patcher
    import torch
    from dicetalk_pack.dicetalk.measure.verify import fill
    from dicetalk_pack.nodes.video import LatentVideo
    from small_model import temporal_vae

    class Mean(torch.nn.Module):
        dtype = torch.float32

        def memory_used_forward(self, shape, dtype):
            return 0

        def extract_features(self, image):
            return None

        def forward(self, before, after, timestep, cache):
            return (before + after) / 2

    cpu = torch.device("cpu")
    vae = temporal_vae(fill, folder / "vae.safetensors")
    vae.first_stage_model.decode = enlarged
    interp_model = comfy.model_patcher.CoreModelPatcher(Mean(), cpu, cpu)

    def through(latents, sound, held):
        class Watched(LatentVideo):
            def _decoded(self, start, stop):
                return passed(super()._decoded(start, stop), held)

        video = Watched(latents, vae, 12.5, {"waveform": sound, "sample_rate": RATE}, interp_model)
        video.save_to(str(folder / "clip.mp4"))
        return video.get_frame_count()

    return through


def through_pipeline(folder):
    """The same as the command line does it."""
    from dicetalk.checkpoints.tiny import write_tiny_checkpoint
    from dicetalk.job import Job
    from dicetalk.media.audio import load_sound
    from dicetalk.pipeline import DiceTalkPipeline
    from dicetalk.rendering import Sampled, write
    from dicetalk.sampling.decoding import CHUNK

    write_tiny_checkpoint(folder / "tiny")
    pipeline = DiceTalkPipeline.from_checkpoint(str(folder / "tiny"))
    pipeline.vae.decode = lambda latents, num_frames: SimpleNamespace(sample=enlarged(latents))
    decode = pipeline.decode

    def through(latents, sound, held):
        pipeline.decode = lambda *given: passed(decode(*given), held)
        speech, video = folder / "speech.wav", folder / "clip.mp4"
        with wave.open(str(speech), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            for block in sound[0, 0].split(RATE):
                file.writeframes((block * 32767).short().numpy().tobytes())
        job = Job(portrait="portrait.png", audio=speech, output=video, emotion="happy", decode_chunk_size=CHUNK)
        inputs = SimpleNamespace(sound=load_sound(speech))
        return write(job, pipeline, Sampled(latents, job.seed), job.settings(), inputs)

    return through


if __name__ == "__main__":
    main()
