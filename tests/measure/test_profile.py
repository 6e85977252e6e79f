"""Milliseconds by kind of operation, a clip stage by stage, and this build beside an older one."""

import json

import pytest
import torch
from project import ROOT

from dicetalk.cli import main
from dicetalk.errors import InputError
from dicetalk.measure import profile as profiling
from dicetalk.measure.clip import Stages
from dicetalk.measure.clip import table as clip_table
from dicetalk.sampling.counting import Workload

TINY = ["--tiny", "--size", "64", "--frames", "2", "--device", "cpu"]


def test_operations_are_timed_by_kind():
    x, weight = torch.randn(64, 64), torch.randn(64, 64)
    kinds = profiling.profile(lambda: torch.nn.functional.silu(x @ weight @ weight), "cpu")
    assert kinds["linear"][1] == 2 and kinds["SiLU"][1] == 1
    assert all(milliseconds > 0 for milliseconds, _ in kinds.values())


def test_the_profile_has_times_and_bytes_of_both_networks(tmp_path, capsys):
    file = tmp_path / "bench.jsonl"
    assert main(["bench", "--profile", *TINY, "--history", str(file)]) == 0
    out = capsys.readouterr().out
    assert "One window step" in out and "Decoding: 8 frames" in out and out.count("\nall ") == 2
    report = json.loads(file.read_text())["report"]
    for part in ("step", "decoding"):
        for network in ("stock", "dicetalk"):
            rows = report[part]["networks"][network]
            assert rows["convolution"]["ms"] > 0 and rows["convolution"]["bytes"] > 0
            assert rows["group norm"]["operations"] > 0


def test_a_build_is_compared_with_itself(capsys, monkeypatch):
    if not (ROOT / ".git").exists():
        pytest.skip("no clone")
    monkeypatch.setattr(profiling, "COMPARED_RUNS", 1)  # each starts two processes, one with the other build's modules
    assert main(["bench", "--compare", "HEAD", *TINY, "--repeats", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["this"]["all_seconds"]) == len(report["other"]["all_seconds"]) == 2
    assert report["ratio"] == report["this"]["seconds"] / report["other"]["seconds"]


def test_a_revision_that_is_not_there():
    with pytest.raises(InputError, match="no such revision|needs a clone"):
        profiling.compare("no-such-revision", Workload(tiny=True), "cpu", 1)


def test_waiting_is_not_work(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("dicetalk.measure.clip.time.perf_counter", lambda: now[0])
    stages = Stages()

    def made():
        for number in range(3):
            now[0] += 2
            yield number

    with stages.working("encoding"):
        for _ in stages.without("encoding", stages.each("decoding", made())):
            now[0] += 1
    assert stages.busy == {"decoding": 6, "encoding": 3}
    assert (stages.first["encoding"], stages.last["encoding"]) == (0, 9)


def test_stages_that_run_at_the_same_time_are_named():
    stages = {"sampling": (5, 0, 5), "decoding": (3, 5, 8), "encoding": (2, 5.5, 9)}
    text = clip_table(
        {
            "clip": 3.0,
            "size": 64,
            "device": "x",
            "stages": {name: dict(zip(("seconds", "from", "to"), figures)) for name, figures in stages.items()},
            "wall": {"seconds": 9.0},
            "tail": {"seconds": 4.0},
            "tail_ratio": 1.33,
        }
    )
    rows = {line.split()[0]: line for line in text.splitlines()}
    assert rows["decoding"].endswith("encoding") and rows["encoding"].endswith("decoding")
    assert rows["sampling"].rstrip().endswith("5.00") and "1.33 ×" in text


def test_a_clip_is_made_stage_by_stage(tmp_path, tiny_checkpoint, capsys):
    values = {"portrait": str(ROOT / "demo/portrait.jpg"), "audio": str(ROOT / "demo/speech.flac")}
    values |= {"length": 0.4, "steps": 1, "size": 64, "checkpoint": str(tiny_checkpoint), "device": "cpu"}
    from dicetalk.measure.clip import measure_clip

    report = measure_clip(values, say=lambda text: None)
    names = {"reading and portrait", "loading", "tokens of speech and emotion", "sampling"}
    assert names | {"decoding", "doubling", "encoding"} == set(report["stages"])
    assert all(0 < stage["seconds"] <= report["wall"]["seconds"] for stage in report["stages"].values())
    assert report["tail"]["seconds"] < report["wall"]["seconds"] and report["tail_ratio"] > 0
    assert report["clip"] == pytest.approx(0.4)
