"""Many clips in one process: what they share is computed once, and each ends as it would alone."""

import json
import threading

import numpy as np
import pytest
from project import DEMO
from small_jobs import job, left_over, pictures

from dicetalk.batch.engine import DONE, FAILED, SKIPPED, Engine, Kept, Stopped
from dicetalk.batch.rows import Row
from dicetalk.batch.running import Report, ready, run_here
from dicetalk.job import Job
from dicetalk.media.container import read_metadata
from dicetalk.rendering import render


def test_clips_equal_those_of_single_runs_and_weights_load_once(tmp_path, tiny_checkpoint, monkeypatch):
    from dicetalk.batch import engine as module

    loads, faces = [], []
    load, prepare = module.load_pipeline, __import__("dicetalk.media.portrait", fromlist=["x"]).prepare_portrait
    monkeypatch.setattr(module, "load_pipeline", lambda *args: loads.append(1) or load(*args))
    monkeypatch.setattr(
        "dicetalk.media.portrait.prepare_portrait", lambda *args, **more: faces.append(1) or prepare(*args, **more)
    )
    jobs = [
        job(tmp_path, tiny_checkpoint, f"{number}.mp4", emotion=emotion, seed=number)
        for number, emotion in enumerate(["happy", "0s sad; 0.1s happy", "happy", "happy:0.5"])
    ]
    rows = [Row(number, each) for number, each in enumerate(jobs)]
    rows.insert(1, Row(9, problem="row 9: it is bad."))
    rows.insert(2, Row(8, job(tmp_path, tiny_checkpoint, "8.mp4", audio=DEMO / "portrait.jpg")))
    outcomes, windows = {}, []
    run_here(rows, lambda outcome: outcomes.update({outcome.row: outcome}), Engine(windows.append))

    assert {row: outcome.status for row, outcome in outcomes.items()} == {
        **dict.fromkeys(range(4), DONE),
        8: FAILED,
        9: FAILED,
    }
    assert "no audio track" in outcomes[8].reason and outcomes[9].reason == "row 9: it is bad."
    assert (len(loads), len(faces)) == (1, 1)
    assert sum(windows) == sum(outcome.windows for outcome in outcomes.values()) > 0
    assert left_over(tmp_path) == []
    for each in jobs[:2]:
        alone = job(tmp_path, tiny_checkpoint, "alone.mp4", emotion=each.emotion, seed=each.seed)
        render(alone, say=lambda text: None)
        assert np.array_equal(pictures(each.output), pictures(alone.output))
        ours, theirs = (json.loads(read_metadata(path)["dicetalk"]) for path in (each.output, alone.output))
        assert ours | {"output": ""} == theirs | {"output": ""}
    assert not np.array_equal(pictures(jobs[0].output), pictures(jobs[2].output))


def test_what_is_there_is_skipped_unless_its_job_is_another(tmp_path, tiny_checkpoint):
    engine = Engine()
    first = job(tmp_path, tiny_checkpoint, "a.mp4")
    assert engine.make(first).status == DONE
    assert engine.make(first).status == SKIPPED
    assert engine.make(job(tmp_path, tiny_checkpoint, "a.mp4", seed=1)).status == DONE
    (tmp_path / "a.mp4").write_bytes(b"no video")
    assert engine.make(first).status == DONE


def test_a_stopped_clip_resumes_and_a_state_that_does_not_fit_is_replaced(tmp_path, tiny_checkpoint):
    engine = Engine()
    clip = job(tmp_path, tiny_checkpoint, "a.mp4", steps=4)
    steps = Engine().check(clip)[0]
    counted = []

    def stop_in_the_third_step(count):
        counted.append(count)
        if sum(counted) > steps // 2:
            engine.stop()

    engine = Engine(stop_in_the_third_step)
    with pytest.raises(Stopped):
        engine.make(clip)
    assert left_over(tmp_path) == ["a.mp4.resume"] and not (tmp_path / "a.mp4").exists()

    counted.clear()
    again = Engine(counted.append)
    assert again.make(clip).status == DONE
    assert max(counted) > 1  # the steps that were done come at once
    assert left_over(tmp_path) == []
    render(job(tmp_path, tiny_checkpoint, "b.mp4", steps=4), say=lambda text: None)
    assert np.array_equal(pictures(clip.output), pictures(tmp_path / "b.mp4"))

    (tmp_path / "a.mp4.resume").write_bytes(b"no state")
    assert again.make(job(tmp_path, tiny_checkpoint, "a.mp4", seed=5)).status == DONE
    assert left_over(tmp_path) == []


def test_ctrl_c_ends_and_the_same_rows_continue(tmp_path, tiny_checkpoint):
    rows = [Row(number, job(tmp_path, tiny_checkpoint, f"{number}.mp4", seed=number)) for number in range(4)]

    def interrupted(outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_here(rows, interrupted)
    assert not [name for name in left_over(tmp_path) if name.endswith(".part")]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dicetalk-batch")]
    outcomes = []
    run_here(rows, outcomes.append)
    assert {outcome.status for outcome in outcomes} == {DONE, SKIPPED} and len(outcomes) == 4
    assert left_over(tmp_path) == []


def test_rows_come_by_checkpoint_and_portrait():
    def row(number, checkpoint, portrait):
        return Row(number, Job(portrait=portrait, audio="a.wav", output="a.mp4", checkpoint=checkpoint))

    rows = [row(1, "x", "a"), row(2, "y", "a"), row(3, "x", "b"), row(4, "x", "a"), row(5, "y", "a")]
    assert [number for number, _ in ready(rows, None)] == [1, 4, 3, 2, 5]


def test_values_are_computed_once_and_the_oldest_go():
    kept, computed = Kept(2), []
    for key in ("a", "b", "a", "c", "a", "b"):
        kept.once(("kind", key), lambda key=key: computed.append(key))
    assert computed == ["a", "b", "c", "b"]
    kept.once(("other", "a"), lambda: computed.append("other"))
    assert computed[-1] == "other"


def test_the_report_is_written_as_it_goes(tmp_path):
    from dicetalk.batch.engine import Outcome

    report = Report(tmp_path / "jobs.report.jsonl")
    report.add(Outcome(3, FAILED, "ä.mp4", "no face"))
    (line,) = (tmp_path / "jobs.report.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) | {} == {
        "row": 3,
        "status": "failed",
        "output": "ä.mp4",
        "reason": "no face",
        "windows": 0,
        "took": 0.0,
    }
    report.close()
