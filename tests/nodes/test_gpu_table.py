"""The measurements of `gpu.py`, as far as they go without a GPU: on the CPU, with a small model."""

from types import SimpleNamespace

import gpu
import pytest

CPU = ("--cpu",)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    from dicetalk.checkpoints.tiny import UNET_CONFIG

    folder = tmp_path_factory.mktemp("gpu")
    gpu.write_unet(folder / "unet.safetensors", UNET_CONFIG, "cpu")
    return folder


@pytest.fixture(scope="module")
def figures(work, comfyui):
    args = SimpleNamespace(size=64, seconds=1, steps=2, runs=3, work=work, limit=300)
    rows = [
        gpu.Row("fp32", CPU, "fp32", clip=True, then=("planned", "runs")),
        gpu.Row("wrong", CPU, "no such type"),
        gpu.Row("bf16", CPU, "bf16", node="EasyCache", clip=True, steps=4),
        gpu.Row("one branch", CPU, "fp32", clip=True, steps=1, scales=(1.0, 1.0)),
    ]
    return {row["row"]: row for row in gpu.in_process(rows, args)}


def test_a_row_holds_times_of_the_clip_and_its_distance_from_the_first(figures):
    clip = figures["fp32"]
    assert clip["frames"] == 12 and clip["steps"] == 2 and clip["distance"] == 0
    assert 0 < clip["step_seconds"] * clip["window_steps"] <= 2 * clip["clip_seconds"]
    assert 0 < figures["bf16"]["distance"] < 0.1
    assert figures["bf16"]["steps"] == 4 and "ten_seconds" not in figures["bf16"]
    assert "distance" not in figures["one branch"]


def test_a_row_that_fails_says_why_and_the_next_ones_are_measured(figures):
    assert figures["wrong"]["error"] == "KeyError: 'no such type'"


def test_runs_and_plans_have_a_line_each(figures):
    assert len(figures["fp32"]["runs"]) == 3
    planned = [row["planned"] for row in figures["fp32"]["planned"]]
    assert planned == sorted(planned) and planned[-1] >= planned[0] > 0


def test_the_tables_name_every_row_and_what_went_wrong(figures):
    text = gpu.tables([*figures.values(), {"row": "broken", "error": "no memory"}])
    assert "| broken | no memory |" in text
    assert all(f"| {name} | 0." in text for name in ("fp32", "bf16"))
    assert "after the second run" in text and "planned / peak" in text
