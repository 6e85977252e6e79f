"""Windows and branches, shared out over workers."""

from collections import Counter

import pytest

from dicetalk.sampling.guidance import BRANCHES
from dicetalk.sampling.shares import Part, shared_out


@pytest.mark.parametrize("workers", range(1, 12))
@pytest.mark.parametrize("windows", range(1, 12))
@pytest.mark.parametrize("branches", [BRANCHES, BRANCHES[1:], BRANCHES[2:]])
def test_each_branch_of_each_window_is_computed_once_and_evenly(windows, branches, workers):
    shares = shared_out(windows, branches, workers)
    units = Counter((part.window, branch) for share in shares for part in share for branch in part.branches)
    assert units == Counter({(window, branch): 1 for window in range(windows) for branch in branches})
    loads = [sum(len(part.branches) for part in share) for share in shares]
    assert len(shares) == workers and max(loads) == -(-windows * len(branches) // workers)
    split = [part.window for share in shares for part in share if len(part.branches) < len(branches)]
    assert len(set(split)) < workers  # whole windows otherwise


def test_one_window_on_two_workers():
    assert shared_out(1, BRANCHES, 2) == [[Part(0, BRANCHES[:2])], [Part(0, BRANCHES[2:])]]
    assert shared_out(2, BRANCHES, 2) == [[Part(0, BRANCHES)], [Part(1, BRANCHES)]]
