"""One clip by two processes on the CPU: the frames are those of one."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from project import ROOT
from small_jobs import job, left_over, pictures

from dicetalk.cli import main
from dicetalk.errors import InputError
from dicetalk.sampling.loop import sample
from dicetalk.sampling.processes import join_processes, process


def test_two_processes_make_the_frames_of_one(tmp_path, tiny_checkpoint, capsys, one_thread):
    made, said = {}, {}
    for name in ("one", "two"):
        # Two windows a step, so that all are computed whole; three chunks.
        clip = job(tmp_path, tiny_checkpoint, f"{name}.mp4", length=0.4, steps=2)
        options = ("portrait", "face", "audio", "output", "checkpoint", "size", "steps", "length", "device", "fps")
        options = [part for option in options for part in (f"--{option}", str(getattr(clip, option)))]
        command = ["generate", *options, "--decode-chunk-size", "2"]
        if name == "one":
            assert main(command) == 0
            said[name] = capsys.readouterr().out
        else:
            # Not by `accelerate launch`, which starts one process on CPUs, whatever --num_processes says.
            launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "dicetalk"]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            done = subprocess.run([*launch, *command], env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            said[name] = done.stdout
        assert said[name].count(f"{name}.mp4: ") == 1  # two that do not know each other would print it twice
        made[name] = pictures(clip.output)
    assert np.array_equal(made["one"], made["two"]) and len(made["one"]) == 5
    assert left_over(tmp_path) == []
    assert "communication" not in said["one"]
    assert re.search(r"2 processes: communication took [\d.]+ s of [\d.]+ s \([\d.]+%\) for [\d.]+ MB", said["two"])


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    join_processes()
    assert process() == (0, 1)


def test_without_accelerate_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(InputError, match="pip install accelerate"):
        join_processes()


def test_windows_that_may_differ_between_processes_are_refused(monkeypatch):
    monkeypatch.setattr("dicetalk.sampling.loop.process", lambda: (0, 2))
    with pytest.raises(InputError, match="--smaller-windows"):
        sample(unet=None, conditions=None, noise=None, scheduler=None, smaller_windows=True)
