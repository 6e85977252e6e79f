"""Many clips in one process: what they share is computed once, and each ends as it would alone."""

import dataclasses
import itertools
import json
import shutil
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from project import DEMO
from small_jobs import job, left_over, pictures

from dicetalk.batch.engine import DONE, FAILED, SKIPPED, Engine, Kept, Stopped
from dicetalk.batch.rows import Row
from dicetalk.batch.running import Report, ready, run_here
from dicetalk.errors import InputError
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


def test_what_rows_share_is_computed_once(tmp_path, tiny_checkpoint, monkeypatch):
    from dicetalk.pipeline import DiceTalkPipeline

    names = "_encode_latent", "_encode_clip", "_encode_pose", "_encode_emotion"
    calls = Counter()

    def counted(name, compute):
        return lambda self, *args: calls.update([name]) or compute(self, *args)

    for name in names:
        monkeypatch.setattr(DiceTalkPipeline, name, counted(name, getattr(DiceTalkPipeline, name)))
    portraits = DEMO / "portrait.jpg", DEMO / "drawn_portrait.png"
    clips = enumerate(itertools.product(portraits, ("happy", "sad:0.5")))
    small = {"steps": 1, "face": "56,53,208,218"}
    rows = [
        Row(number, job(tmp_path, tiny_checkpoint, f"{number}.mp4", portrait=portrait, emotion=emotion, **small))
        for number, (portrait, emotion) in clips
    ]
    outcomes = []
    run_here(rows, outcomes.append)
    assert [outcome.status for outcome in outcomes] == [DONE] * 4
    assert calls == dict.fromkeys(names, 2)


def test_a_reference_clip_is_read_once_and_not_drawn_by_a_check(tmp_path, tiny_checkpoint, monkeypatch):
    reads = []

    def read(self, clip, priors, *args):
        reads.append(self.chart)
        if self.chart:
            Path(self.chart).touch()
        return SimpleNamespace(emotion=priors["happy"], text=lambda: "")

    monkeypatch.setattr(Job, "read_clip", read)
    emotion = {"emotion": f"clip:{DEMO / 'speech.flac'}", "steps": 1}
    drawn = job(tmp_path, tiny_checkpoint, "a.mp4", chart=tmp_path / "a.png", **emotion)
    engine = Engine()
    assert engine.check(drawn)[0] > 0 and reads == [None] and list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="chart"):
        engine.check(dataclasses.replace(drawn, chart="a.txt"))
    plain = [job(tmp_path, tiny_checkpoint, f"{number}.mp4", seed=number, **emotion) for number in range(2)]
    assert [engine.make(each).status for each in (*plain, drawn)] == [DONE] * 3
    assert reads == [None, drawn.chart] and (tmp_path / "a.png").is_file()


def test_the_time_is_reckoned_with_the_networks_own_size(tmp_path, tiny_checkpoint, monkeypatch):
    from dicetalk.batch.plan import reckoned_seconds
    from dicetalk.checkpoints.finding import miniature_folder, resolve_checkpoint

    monkeypatch.setattr("dicetalk.measure.bench.matrix_rate", lambda *args: 1e9)
    steps, size, device, tiny = Engine().check(job(tmp_path, tiny_checkpoint, "a.mp4"))
    _, _, _, small = Engine().check(job(tmp_path, miniature_folder(), "a.mp4"))
    seconds = [reckoned_seconds({(size, device, None, network): steps}) for network in (tiny, small, ())]
    assert seconds[0] < seconds[1] < seconds[2] / 10  # the released one
    damaged = shutil.copytree(tiny_checkpoint, tmp_path / "damaged")
    resolve_checkpoint(damaged).file("unet").write_bytes(b"no weights")
    with pytest.raises(InputError, match="unet"):
        Engine().check(job(tmp_path, damaged, "a.mp4"))


def test_a_clip_is_written_while_the_next_is_sampled(tmp_path, tiny_checkpoint, monkeypatch):
    """The first clip is written only when the second one is being sampled, which would never be one after the other."""
    from dicetalk.batch import engine as module

    begun, sample, write = [], module.sample_best, module.write
    second = threading.Event()

    def sampled(*args):
        begun.append(1)
        if len(begun) == 2:
            second.set()
        return sample(*args)

    monkeypatch.setattr(module, "sample_best", sampled)
    monkeypatch.setattr(module, "write", lambda *args: second.wait(60) and write(*args))
    rows = [Row(number, job(tmp_path, tiny_checkpoint, f"{number}.mp4", steps=1, seed=number)) for number in range(2)]
    outcomes = []
    run_here(rows, outcomes.append)
    assert second.is_set() and [outcome.status for outcome in outcomes] == [DONE, DONE]


def test_what_is_there_is_skipped_unless_its_job_is_another(tmp_path, tiny_checkpoint):
    engine = Engine()
    first = job(tmp_path, tiny_checkpoint, "a.mp4")
    assert engine.make(first).status == DONE
    assert engine.make(first).status == SKIPPED
    assert engine.make(job(tmp_path, tiny_checkpoint, "a.mp4", seed=1)).status == DONE
    (tmp_path / "a.mp4").write_bytes(b"no video")
    assert engine.make(first).status == DONE


def test_a_video_without_its_subtitles_is_not_made(tmp_path, tiny_checkpoint):
    """A process that dies between the two files would otherwise leave a clip that counts as done."""
    script = {"script": "Hello", "place_words": "sound", "subtitles": True, "length": 0.5, "steps": 1}
    clip, engine = job(tmp_path, tiny_checkpoint, "a.mp4", **script), Engine()
    assert engine.make(clip).status == DONE and engine.make(clip).status == SKIPPED
    (tmp_path / "a.srt").unlink()
    assert engine.make(clip).status == DONE and (tmp_path / "a.srt").is_file()


def test_a_row_without_a_checkpoint_is_made_again_when_another_one_is_the_first(tmp_path, tiny_checkpoint, monkeypatch):
    from dicetalk.checkpoints import finding

    first = finding.resolve_checkpoint(tiny_checkpoint)
    found = {"first": first}
    monkeypatch.setattr(finding, "find_checkpoints", lambda roots: found)
    clip, engine = job(tmp_path, None, "a.mp4", steps=1), Engine()
    assert engine.make(clip).status == DONE and engine.make(clip).status == SKIPPED
    found["first"] = dataclasses.replace(first, name="another")
    assert engine.make(clip).status == DONE
    found.clear()
    assert engine.make(clip).status == SKIPPED  # where there is none to make it with


def test_a_damaged_file_or_a_full_disk_fails_its_row_alone(tmp_path, tiny_checkpoint, monkeypatch):
    import errno

    from dicetalk.media import video

    (tmp_path / "bad.png").write_bytes((DEMO / "portrait.jpg").read_bytes()[:2000])
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    open_writer = video.av.open

    def full(path, *args, **more):
        if ".full.mp4" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_writer(path, *args, **more)

    monkeypatch.setattr(video.av, "open", full)
    changes = [{"portrait": tmp_path / "bad.png"}, {"audio": tmp_path / "bad.wav"}, {}, {}]
    names = ["picture.mp4", "sound.mp4", "full.mp4", "good.mp4"]
    rows = [
        Row(number, job(tmp_path, tiny_checkpoint, name, steps=1, **change))
        for number, (name, change) in enumerate(zip(names, changes, strict=True))
    ]
    outcomes = []
    run_here(rows, outcomes.append)
    reasons = {outcome.row: outcome.reason for outcome in outcomes}
    assert "bad.png" in reasons[0] and "bad.wav" in reasons[1] and reasons[3] is None
    assert reasons[2] == f"{tmp_path / 'full.mp4'} cannot be written: the disk is full."
    assert all(reason is None or len(reason.splitlines()) == 1 for reason in reasons.values())
    assert left_over(tmp_path) == ["full.mp4.resume"]  # its steps are done
    monkeypatch.undo()
    outcomes, windows = {}, []
    run_here(rows[2:], lambda outcome: outcomes.update({outcome.row: outcome.status}), Engine(windows.append))
    assert outcomes == {2: DONE, 3: SKIPPED} and windows == [] and left_over(tmp_path) == []


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
    many = Kept(1, {"small": 2})
    for key in ("a", "b", "a"):
        many.once(("small", key), lambda key=key: computed.append(key))
    assert computed[-2:] == ["a", "b"]


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
