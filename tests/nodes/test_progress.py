"""How long a job may still take."""

import importlib


def test_the_time_left_is_what_the_rest_takes_at_the_same_pace(pack):
    progress = importlib.import_module(f"{pack.__name__}.nodes.progress")
    now = [100.0]
    left = progress.TimeLeft(lambda: now[0])
    now[0] = 110.0
    assert left.after(0.25) == "about 30 s left"
    assert left.after(0.01) == "about 16 min left"
    assert left.after(1) == "done"
