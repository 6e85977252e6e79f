"""What a batch saves: the same clips by one command, and by one command for each."""

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

from ..errors import InputError

CLIPS, PORTRAITS = 16, 4
SECONDS, STEPS, SIZE = 0.4, 2, 64
TARGETS = {"wall": 0.35, "cpu": 0.6, "memory": 1.1}


def bench_batch(clips: int = CLIPS, portraits: int = PORTRAITS, on_run: Callable[[], None] = lambda: None) -> dict:
    """Make short clips of drawn people with the tiny checkpoint on the CPU: by one `batch`, and by `generate` for each.

    Args:
        clips, portraits: how many; the clips take the portraits by turns.
        on_run: called after each command.

    Returns:
        {"batch" and "single": {"wall", "cpu" (seconds), "memory" (bytes, the largest process)}, "ratios": of these}.

    Raises:
        InputError: on Windows, which does not say how much a process used; or a command failed.
    """
    if not hasattr(os, "wait4"):
        raise InputError("--batch needs Linux or macOS, where the system says what a process used.")
    with tempfile.TemporaryDirectory() as folder:
        jobs = _jobs(Path(folder), clips, portraits)
        single = []
        for job in jobs:
            options = [part for name, value in job.items() for part in (f"--{name}", str(value))]
            single.append(_run("generate", *options))
            on_run()
        table = Path(folder) / "jobs.csv"
        with open(table, "w", newline="", encoding="utf-8") as file:
            rows = csv.DictWriter(file, list(jobs[0]))
            rows.writeheader()
            rows.writerows(job | {"output": f"batch-{number}.mp4"} for number, job in enumerate(jobs))
        batch = _run("batch", str(table))
        on_run()
    report = {
        "batch": batch,
        "single": {
            "wall": sum(each["wall"] for each in single),
            "cpu": sum(each["cpu"] for each in single),
            "memory": max(each["memory"] for each in single),
        },
    }
    ratios = {name: batch[name] / report["single"][name] for name in TARGETS}
    return {"clips": clips, "portraits": portraits, **report, "ratios": ratios}


def _jobs(folder, clips, portraits):
    """Options of `generate` for each clip."""
    from PIL import Image

    from ..checkpoints.tiny import write_tiny_checkpoint
    from ..drawn import Person, Take
    from ..drawn.files import wav
    from ..media.image import save_png

    write_tiny_checkpoint(folder / "tiny")
    faces = []
    for number in range(portraits):
        take = Take(Person.of(number), "neutral")
        save_png(Image.fromarray(take.portrait(256)), folder / f"{number}.png")
        faces.append(",".join(f"{side:g}" for side in take.face_box(256)))
    (folder / "speech.wav").write_bytes(wav(take.sound))
    return [
        {
            "portrait": folder / f"{number % portraits}.png",
            "audio": folder / "speech.wav",
            "emotion": ("happy", "sad", "angry")[number % 3],
            "output": folder / f"{number}.mp4",
            "checkpoint": folder / "tiny",
            "length": SECONDS,
            "size": SIZE,
            "face": faces[number % portraits],
            "seed": number,
            "steps": STEPS,
            "device": "cpu",
        }
        for number in range(clips)
    ]


def _run(*arguments):
    """Time, processor time and largest memory of a command."""
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicetalk", *arguments], stdout=output, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise InputError(f"`dicetalk {arguments[0]}` failed: {' '.join(output.read().split())[-300:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "wall": time.monotonic() - begun,
        "cpu": used.ru_utime + used.ru_stime,
        "memory": used.ru_maxrss * unit,
    }
