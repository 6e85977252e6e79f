"""Kernels and bytes of a window step, counted from shapes."""

import pytest
import torch

from dicetalk.cli import main
from dicetalk.measure.traffic import TARGETS, TrafficCounter, count_traffic
from dicetalk.sampling.counting import DICETALK, Workload


def test_a_window_step_of_the_released_size_is_within_its_targets():
    ours = count_traffic(DICETALK, Workload(512, 512, 25, torch.float16))
    assert 400e9 < ours.bytes <= TARGETS["bytes"] and 1000 < ours.kernels <= TARGETS["kernels"]
    assert ours.convolutions_3d == 0
    assert ours.layout_copies <= 44, "the group norms over frames; 124 before, and none is the target"


def test_what_is_counted():
    x = torch.zeros(2, 8, 4)
    with TrafficCounter() as counter:
        y = x.transpose(1, 2)  # a view
        y = y + 1  # reads and writes
        y.mul_(2)
        torch.lerp(y, y + 0, 0.5, out=y)
    assert counter.traffic.kernels == 4
    assert counter.traffic.bytes == x.nbytes * (2 + 2 + 2 + 3)


@pytest.mark.parametrize("contiguous", [True, False])
def test_a_group_norm_that_cuda_copies_for(contiguous):
    x = torch.zeros(2, 32, 3, 5)
    x = x if contiguous else x.to(memory_format=torch.channels_last)
    with TrafficCounter() as counter:
        torch.nn.functional.group_norm(x, 4)
    assert counter.traffic.layout_copies == (not contiguous)


def test_the_bench_prints_them(capsys):
    assert main(["bench", "--traffic", "--tiny", "--size", "64", "--frames", "2", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "kernels" in out and "convolutions in 3D" in out and "target" not in out
