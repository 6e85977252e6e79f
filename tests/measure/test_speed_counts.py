"""The counts of pictures by what sampling leaves out, and their targets."""

import pytest

from dicetalk.measure.speed import CHOICES, pictures, shallow_share
from dicetalk.measure.speed import table as speed_table
from dicetalk.sampling.speed import SPEEDS, TARGETS
from dicetalk.sampling.windows import window_plan


def test_the_published_count_is_that_of_the_windows():
    for seconds, frames in ((3, 38), (10, 125)):
        windows = sum(map(len, window_plan(frames, 25)))
        assert pictures(seconds, {}) == pictures(seconds, SPEEDS["published"]) == windows * 3 * 25


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("seconds", [3, 10])
def test_the_speeds_reach_their_targets(name, seconds):
    assert pictures(seconds, {}) / pictures(seconds, SPEEDS[name], shallow_share()) >= TARGETS[name]


def test_clamped_windows_halve_three_seconds():
    assert pictures(3, {"clamp_windows": True}) <= 0.55 * pictures(3, {})


def test_inner_levels_count_by_what_is_left():
    whole = pictures(3, {})
    assert pictures(3, {"deep_cache": 2}, share=1.0) == whole
    assert pictures(3, {"deep_cache": 2}, share=0.25) == pytest.approx(whole * (1 - 0.75 * 12 / 25), rel=0.02)


def test_the_table_names_every_choice_and_target():
    rows = [
        {"name": name, "pictures": 11250.0, "fewer": {1: 1.0, 3: 1.0, 10: 1.0}, "target": TARGETS.get(name[6:])}
        for name in CHOICES
    ]
    text = speed_table(rows)
    assert all(name in text for name in CHOICES)
    assert "3.30" in text and "4.50" in text and "1.82 at 3 s" in text


def test_evaluate_measures_what_each_choice_costs():
    from dicetalk.measure.drawn_clips import Sampling
    from dicetalk.measure.savings import SAVINGS

    measured = {saving.name: Sampling(**saving.sampling) for saving in SAVINGS}
    choices = {name for name in CHOICES if name not in ("speed published", "guidance_from 100")}
    assert choices <= measured.keys()
    assert (measured["speed draft"].steps, measured["speed draft"].deep_cache) == (8, 3)
