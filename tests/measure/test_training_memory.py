"""Memory of a training step, counted from shapes."""

import pytest
import torch

from dicetalk.cli import main
from dicetalk.measure.training import step_memory
from dicetalk.sampling.counting import Workload

STEP = Workload(64, 64, 4, torch.float32, tiny=True)


@pytest.fixture(scope="module")
def counted():
    return {(trains, on): step_memory(STEP, trains, on) for trains in ("all", "adapters") for on in (False, True)}


def test_what_learns_and_what_runs_again_takes_less(counted):
    assert counted["all", False].learning > counted["adapters", False].learning > 0
    assert counted["adapters", False].kept < counted["all", False].kept
    for trains in ("all", "adapters"):
        plain, checkpointed = counted[trains, False], counted[trains, True]
        assert 0 < checkpointed.kept < plain.kept / 4
        assert checkpointed.optimizer == plain.optimizer == 12 * plain.learning


def test_it_grows_with_the_frames():
    longer = step_memory(Workload(64, 64, 8, torch.float32, tiny=True), "all", False)
    assert 1.8 < longer.kept / step_memory(STEP, "all", False).kept < 2.2


def test_bench_prints_it(capsys):
    assert main(["bench", "--train", "--tiny", "--size", "64", "--frames", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["trains", "checkpointing"]
    assert [line.split()[:2] for line in lines[1:]] == [
        *(["all", "off"], ["all", "on"]),
        *(["adapters", "off"], ["adapters", "on"]),
    ]
