"""The comparison of one batch with single commands."""

import pytest

from dicetalk.batch import bench


@pytest.mark.timeout(600)
def test_both_ways_are_measured(monkeypatch):
    commands, run = [], bench._run
    monkeypatch.setattr(bench, "_run", lambda *arguments: commands.append(arguments[0]) or run(*arguments))
    report = bench.bench_batch(clips=2, portraits=1)
    assert commands == ["generate", "generate", "batch"]
    for name in ("wall", "cpu", "memory"):
        assert report["batch"][name] > 0
        assert report["ratios"][name] == report["batch"][name] / report["single"][name]
    assert report["ratios"]["cpu"] < 1  # one start of Python and one loading less
    assert 1e7 < report["batch"]["memory"] < 1e11  # bytes


def test_a_command_that_fails_is_an_error():
    from dicetalk.errors import InputError

    with pytest.raises(InputError, match="`dicetalk generate` failed: .*--output"):
        bench._run("generate")
