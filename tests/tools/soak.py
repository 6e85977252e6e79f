"""Many random jobs on a real ComfyUI server with the tiny checkpoint, one after the other, some of them cancelled.

    python dev.py soak [--jobs 200] [--seed 1] [--report FILE]

Prints how many finished, were cancelled and failed, what RAM the server held, and how long its queue took to answer.
The exit code is 1 if a job failed or memory grew. Interrupted, it reports on the jobs that ended until then.
"""

import argparse
import copy
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import _paths  # noqa: F401
from project import GRAPHS, ROOT

QUICK_START = json.loads((GRAPHS / "quick_start.json").read_text())
KINDS = ("sampler", "guider", "timeline", "mix", "video")
CANCELS = (None,) * 6 + ("pending", "running", "running")
SIZES = (128, 128, 192)  # of the short side, pixels
QUEUED = 8  # jobs in the queue at once, the running one included
POLL = 0.1  # seconds
LONGEST_JOB = 600  # seconds in which something must end
ALLOWED_GROWTH = 100  # MB from the end of the warm-up to the end
# Tensors that are freed go back to the system at once. The C library (glibc) would keep some, more and more while its
# heap is cut up by pictures of many sizes, which looks like a leak.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20)}


@dataclass
class Job:
    """A job. It is cancelled never (None), while it is "pending", or "running", `delay` seconds after its start."""

    kind: str
    graph: dict
    cancel: str | None = None
    delay: float = 0.0
    started: float | None = None
    asked: bool = False
    outcome: str | None = None
    error: str | None = None


@dataclass
class Report:
    """What a soak found; RAM in MB (of the server's process, without mapped files), times in seconds."""

    seed: int
    jobs: list = field(default_factory=list)
    ram: dict = field(default_factory=dict)
    responses: list = field(default_factory=list)
    seconds: float = 0.0

    def count(self, outcome):
        return sum(job.outcome == outcome for job in self.jobs)

    @property
    def growth(self):
        return self.ram["end"] - self.ram["warm"]

    def as_json(self):
        return {
            "machine": machine(),
            "seed": self.seed,
            "jobs": len(self.jobs),
            "finished": self.count("finished"),
            "cancelled": self.count("cancelled"),
            "failed": self.count("failed"),
            "errors": [f"{job.kind}: {job.error}" for job in self.jobs if job.error],
            "kinds": {kind: Counter(job.outcome for job in self.jobs if job.kind == kind) for kind in KINDS},
            "ram_mb": {name: round(value) for name, value in self.ram.items()},
            "slowest_queue_response_s": round(max(self.responses), 3),
            "seconds": round(self.seconds, 1),
        }

    def table(self):
        found = self.as_json()
        rows = [(name, found[name]) for name in ("machine", "seed", "jobs", "finished", "cancelled", "failed")]
        rows += [(f"  {kind}", ", ".join(f"{n} {what}" for what, n in c.items())) for kind, c in found["kinds"].items()]
        rows += [(f"RAM {name}", f"{value} MB") for name, value in found["ram_mb"].items()]
        rows += [
            ("slowest queue response", f"{found['slowest_queue_response_s']} s"),
            ("took", f"{found['seconds']} s"),
        ]
        return "\n".join(f"{name:24}{value}" for name, value in rows) + "".join(f"\n! {e}" for e in found["errors"])


def machine():
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{os.cpu_count()} cores, {name}, {platform.system()}, Python {platform.python_version()}"


def soak(server, jobs, seed=1, on_job=lambda job: None, sizes=SIZES):
    """Run `jobs` random jobs on a `furnished` server, of pictures of these sizes; the Report."""
    draw, report, begun = random.Random(seed), Report(seed), time.monotonic()
    report.ram["start"] = ram(server)
    planned = random_jobs(draw, jobs, sizes=sizes)
    warm = max(len(KINDS), jobs // 5)
    try:
        for name, batch in (("warm", planned[:warm]), ("end", planned[warm:])):
            run(server, batch, report, on_job)
            report.ram[name] = settled_ram(server, report)
    except KeyboardInterrupt:
        report.ram.setdefault("warm", ram(server))
        report.ram["end"] = ram(server)
    report.seconds = time.monotonic() - begun
    return report


def settled_ram(server, report=None):
    """RAM after a job that is always the same, as ComfyUI keeps the results of the last one."""
    same = random_job(random.Random(0), "sampler", {"short_side": 64, "crop": False}, None, 0.2)
    run(server, [same], report and Report(report.seed, responses=report.responses))
    return ram(server)


def ram(server):
    """MB that the server's process holds by itself: without the files it has mapped, where the system reports them."""
    import psutil

    memory = psutil.Process(server.process.pid).memory_info()
    return (memory.rss - getattr(memory, "shared", 0)) / 1e6


def run(server, jobs, report=None, on_job=lambda job: None):
    """Queue jobs and see them to their ends, cancelling those that are to be cancelled."""
    report = report or Report(0)
    waiting, here, last_end = list(reversed(jobs)), {}, time.monotonic()

    def asked(function, *arguments):
        before = time.monotonic()
        answer = function(*arguments)
        report.responses.append(time.monotonic() - before)
        return answer

    while waiting or here:
        while waiting and len(here) < QUEUED:
            job = waiting.pop()
            here[asked(server.post, "/prompt", {"prompt": job.graph})["prompt_id"]] = job
        queue = asked(server.get, "/queue")
        running, pending = ({entry[1] for entry in queue[f"queue_{kind}"]} for kind in ("running", "pending"))
        for name, job in list(here.items()):
            if name in running:
                job.started = job.started or time.monotonic()
                if job.cancel == "running" and not job.asked and time.monotonic() - job.started >= job.delay:
                    asked(server.post, "/interrupt", {"prompt_id": name})
                    job.asked = True
            elif name in pending:
                if job.cancel == "pending" and not job.asked:
                    asked(server.post, "/queue", {"delete": [name]})
                    job.asked = True
            elif ended(server, name, job):
                last_end = time.monotonic()
                report.jobs.append(here.pop(name))
                on_job(job)
        if time.monotonic() - last_end > LONGEST_JOB:
            raise TimeoutError(f"no job ended in {LONGEST_JOB} s")
        time.sleep(POLL)


def ended(server, name, job):
    """Whether a job that is not in the queue any more has ended, and how: its `outcome` and `error`."""
    history = server.get(f"/history/{name}").get(name)
    if history is None:  # deleted while it was pending, or not written yet
        job.outcome = "cancelled" if job.cancel == "pending" and job.asked else None
        return job.outcome is not None
    messages = dict(history["status"]["messages"])
    if history["status"]["status_str"] == "success":
        job.outcome = "finished"
    elif "execution_interrupted" in messages and job.asked:
        job.outcome = "cancelled"
    else:
        job.outcome, told = "failed", messages.get("execution_error", messages)
        job.error = f"{told.get('node_type')}: {str(told.get('exception_message'))[:300]}"
    return True


def random_jobs(draw, count, kinds=KINDS, cancels=CANCELS, seconds=1.0, sizes=SIZES):
    """Jobs of the kinds in turn with everything else drawn, of speech up to so many seconds."""
    portrait, jobs = random_portrait(draw, sizes), []
    for number in range(count):
        if draw.random() < 0.25:  # as people do: several times the same picture, whose CLIP embedding ComfyUI keeps
            portrait = random_portrait(draw, sizes)
        jobs.append(random_job(draw, kinds[number % len(kinds)], portrait, draw.choice(cancels), seconds))
    return jobs


def random_portrait(draw, sizes):
    return {"short_side": draw.choice(sizes), "crop": draw.random() < 0.5}


def random_job(draw, kind, portrait, cancel, longest):
    """A job of a kind, for a portrait, with everything else drawn; one to be cancelled while it runs takes long."""
    graph = copy.deepcopy(QUICK_START)
    for last in ("10", "11", "12"):
        del graph[last]
    graph["6"]["inputs"] |= portrait
    seconds = draw.uniform(0.1, longest) if cancel != "running" else 4.0
    graph["7"]["inputs"] |= {"start": round(draw.uniform(0, 1), 2), "length": round(seconds, 2)}
    graph["8"]["inputs"] |= {"emotion": draw.choice(EMOTIONS), "intensity": round(draw.uniform(0, 2), 2)}
    graph["9"]["inputs"] |= {
        "seed": draw.getrandbits(32),
        "steps": draw.randint(1, 2) if cancel != "running" else 100,
        "sampler_name": draw.choice(["euler", "dpmpp_2m", "heun"]),
        "reference_scale": draw.choice([1.0, 3.0]),
        "emotion_scale": draw.choice([1.0, 6.0]),
        "overlap": draw.choice([0, 0, 6]),
    }
    latent = ADD[kind](graph, draw)
    if kind == "video":
        if draw.random() < 0.5:
            chunks = {"chunk_size": draw.randint(1, 8), "context": draw.choice([0, 2])}
            graph["31"] = node("DiceTalkVideo", samples=latent, vae=["5", 3], fps=12.5, audio=["7", 3], **chunks)
        else:
            graph["30"] = node("VAEDecode", samples=latent, vae=["5", 3])
            graph["31"] = node("CreateVideo", images=["30", 0], fps=12.5, audio=["7", 3])
        graph["32"] = node("SaveVideo", video=["31", 0], filename_prefix="soak", format="auto", codec="auto")
    else:
        graph["30"] = node("SaveLatent", samples=latent, filename_prefix="soak")
    return Job(kind, graph, cancel, draw.uniform(0, 1.5))


EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def _plain(graph, draw):
    return ["9", 0]


def _guider(graph, draw):
    given = graph.pop("9")["inputs"]
    own = {name: given.pop(name) for name in ("seed", "steps", "sampler_name", "scheduler")}
    steps = {"scheduler": draw.choice(["karras", "simple"]), "steps": own["steps"], "denoise": 1.0}
    graph["20"] = node("DiceTalkGuider", **given)
    graph["21"] = node("RandomNoise", noise_seed=own["seed"])
    graph["22"] = node("KSamplerSelect", sampler_name=own["sampler_name"])
    graph["23"] = node("BasicScheduler", model=["5", 0], **steps)
    wired = {"noise": ["21", 0], "guider": ["20", 0], "sampler": ["22", 0], "sigmas": ["23", 0]}
    graph["24"] = node("SamplerCustomAdvanced", **wired, latent_image=["20", 1])
    return ["24", 0]


def _timeline(graph, draw):
    first, second, third = draw.sample(EMOTIONS, 3)
    time, intensity = draw.uniform(0.1, 1), draw.uniform(0, 2)
    text = f"0s {first}; {time:.2f}s {second}:{intensity:.1f} smooth; 2s (emotion_a + {third} 0.5)"
    graph["25"] = node(
        "DiceTalkEmotionTimeline",
        **{"dicetalk": ["5", 1], "timeline": text, "easing": "as written", "emotions.emotion_a": ["8", 0]},
    )
    graph["9"]["inputs"]["emotion"] = ["25", 0]
    return ["9", 0]


def _mix(graph, draw):
    graph["25"] = node("DiceTalkEmotion", dicetalk=["5", 1], emotion=draw.choice(EMOTIONS), intensity=1.0)
    wired = {"emotions.emotion_a": ["8", 0], "emotions.emotion_b": ["25", 0]}
    method = draw.choice(["barycentre", "moments", "tokens"])
    graph["26"] = node("DiceTalkEmotionMix", **wired, weights=f"1, {draw.uniform(0.1, 3):.2f}", method=method)
    graph["9"]["inputs"]["emotion"] = ["26", 0]
    return ["9", 0]


ADD = {"sampler": _plain, "guider": _guider, "timeline": _timeline, "mix": _mix, "video": _plain}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=ROOT / ".cache" / "soak.json", help="JSON to write")
    args = parser.parse_args()
    from comfy_server import furnished

    from dicetalk.checkpoints.tiny import write_tiny_checkpoint

    comfyui = Path(os.environ.get("COMFYUI_PATH") or "nowhere")
    if not (comfyui / "main.py").is_file():
        sys.exit("no ComfyUI found: set COMFYUI_PATH to a ComfyUI folder")
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_checkpoint(Path(folder) / "tiny")
        server = furnished(comfyui, ROOT, Path(folder) / "comfyui", Path(folder) / "tiny", GIVE_BACK)
        try:
            report = soak(server, args.jobs, args.seed, lambda job: print(f"{job.kind}: {job.outcome}", flush=True))
        finally:
            server.stop()
    args.report.parent.mkdir(parents=True, exist_ok=True)
    args.report.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    print(f"\n{report.table()}\n\nThe report: {args.report}")
    grown = report.growth > ALLOWED_GROWTH
    if grown:
        print(f"! RAM grew by {report.growth:.0f} MB after the warm-up; {ALLOWED_GROWTH} are allowed.")
    return int(report.count("failed") > 0 or grown)


if __name__ == "__main__":
    sys.exit(main())
