"""Inputs and outputs behind URLs: fsspec's storage in memory, and one that fails as networks do."""

import gc
import os

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from project import DEMO
from small_jobs import job, pictures

from dicetalk.batch import urls
from dicetalk.batch.engine import DONE, FAILED, SKIPPED, Engine, Stopped
from dicetalk.batch.rows import folder_rows, read_rows
from dicetalk.batch.running import run_here
from dicetalk.batch.urls import Copies, at_hand, is_url, staging_folder
from dicetalk.errors import InputError
from dicetalk.rendering import render


class Studio(MemoryFileSystem):
    """A storage in memory, whose line can break in the middle of a file."""

    protocol = "studio"
    store: dict = {}
    pseudo_dirs = [""]
    broken = False

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("studio://", "memory://"))

    def put_file(self, lpath, rpath, **options):
        if not Studio.broken:
            return super().put_file(lpath, rpath, **options)
        with open(lpath, "rb") as file:
            self.pipe_file(rpath, file.read(1000))
        raise ConnectionError("the line is dead")


fsspec.register_implementation("studio", Studio)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home folder, temporary files and storages of the test's own."""
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(Studio, "broken", False)
    for kind in (Studio, MemoryFileSystem):
        kind.store.clear()
        kind.pseudo_dirs[:] = [""]
    studio = fsspec.filesystem("studio")
    for name in ("portrait.jpg", "speech.flac"):
        studio.pipe_file(f"/in/{name}", (DEMO / name).read_bytes())
    return tmp_path / "home"


def kept(home):
    """What is in the home folder."""
    return sorted(path.name for path in home.rglob("*") if path.is_file())


def test_a_table_of_urls(tmp_path, tiny_checkpoint, home):
    head = "portrait,audio,output,emotion,checkpoint,size,steps,length,device,fps"
    small = f"{tiny_checkpoint},64,2,0.2,cpu,12.5"
    rows = [
        f"studio://in/portrait.jpg,studio://in/speech.flac,memory://out/{{emotion}}.mp4,happy|sad,{small}",
        f"studio://in/portrait.jpg,{DEMO / 'speech.flac'},c.mp4,clip:studio://in/nothing.png,{small}",
        f"{DEMO / 'portrait.jpg'},studio://in/speech.flac,memory://out/sad.mp4,,{small}",
    ]
    (tmp_path / "jobs.csv").write_text("\n".join([head, *rows]))
    rows = read_rows(tmp_path / "jobs.csv")
    assert [row.problem is None for row in rows] == [True, False, True, False]  # two write sad.mp4
    outcomes = []
    run_here(rows, outcomes.append, engine := Engine())
    status = {(outcome.row, outcome.output): outcome for outcome in outcomes}
    assert status[1, "memory://out/happy.mp4"].status == DONE and status[1, "memory://out/happy.mp4"].frames == 3
    failed = status[2, str(tmp_path / "c.mp4")]
    assert failed.reason == (
        "emotion is studio://in/nothing.png, which cannot be read: there is no such file or folder; check the URL."
    )
    store = fsspec.filesystem("memory")
    assert store.find("/") == ["/out/happy.mp4"] and kept(home) == []
    (tmp_path / "happy.mp4").write_bytes(store.cat_file("/out/happy.mp4"))
    render(job(tmp_path, tiny_checkpoint, "alone.mp4", emotion="happy", face=None), say=lambda text: None)
    assert np.array_equal(pictures(tmp_path / "happy.mp4"), pictures(tmp_path / "alone.mp4"))

    again = []
    run_here(rows, again.append, engine)
    assert {each.output: each.status for each in again}["memory://out/happy.mp4"] == SKIPPED
    del engine
    gc.collect()  # it and its pipeline refer to each other
    assert os.listdir(tmp_path / "temporary") == []


def urls_job(tmp_path, tiny_checkpoint, **changes):
    inputs = {"portrait": "studio://in/portrait.jpg", "audio": "studio://in/speech.flac"}
    return job(tmp_path, tiny_checkpoint, "x.mp4", **inputs, output="studio://out/x.mp4", **changes)


def test_a_line_that_breaks_leaves_nothing_there_and_nothing_is_made_twice(tmp_path, tiny_checkpoint, home):
    clip, studio = urls_job(tmp_path, tiny_checkpoint), fsspec.filesystem("studio")
    studio.pipe_file("/out/x.mp4", b"of last week")
    studio.pipe_file("/out/.x.mp4.0123abcd.part", b"of a machine that died")
    Studio.broken = True
    failed = Engine().make(clip)
    assert failed.status == FAILED
    assert failed.reason == (
        "output is studio://out/x.mp4, which cannot be written: the line is dead; check the URL and your rights."
    )
    assert studio.cat_file("/out/x.mp4") == b"of last week"
    assert studio.find("/out") == ["/out/.x.mp4.0123abcd.part", "/out/x.mp4"]
    assert kept(home) == ["x.mp4"]
    Studio.broken = False
    windows = []
    outcome = Engine(windows.append).make(clip)
    assert outcome.status == DONE and windows == []
    assert studio.find("/out") == ["/out/x.mp4"] and kept(home) == []
    assert Engine().make(clip).status == SKIPPED


def test_a_stopped_clip_resumes_on_this_machine(tmp_path, tiny_checkpoint, home):
    clip, counted = urls_job(tmp_path, tiny_checkpoint, steps=4), []

    def stop_later(count):
        counted.append(count)
        if sum(counted) == 6:
            engine.stop()

    engine = Engine(stop_later)
    with pytest.raises(Stopped):
        engine.make(clip)
    assert kept(home) == ["x.mp4.resume"] and fsspec.filesystem("studio").find("/out") == []
    counted.clear()
    assert Engine(counted.append).make(clip).status == DONE
    assert max(counted) > 1 and kept(home) == []


def test_subtitles_go_where_the_video_goes(tmp_path, tiny_checkpoint, home):
    studio = fsspec.filesystem("studio")
    studio.pipe_file("/in/words.txt", b"[happy] Hello")
    script = {"script": "studio://in/words.txt", "place_words": "sound", "subtitles": True}
    clip = urls_job(tmp_path, tiny_checkpoint, length=0.5, **script)
    Studio.broken = True
    assert Engine().make(clip).status == FAILED
    assert studio.find("/out") == [] and kept(home) == ["x.mp4", "x.srt"]
    Studio.broken = False
    assert Engine().make(clip).status == DONE
    assert studio.find("/out") == ["/out/x.mp4", "/out/x.srt"] and kept(home) == []
    assert b"Hello" in studio.cat_file("/out/x.srt")
    assert Engine().make(clip).status == SKIPPED
    studio.rm_file("/out/x.srt")
    assert Engine().make(clip).status == DONE and studio.isfile("/out/x.srt")


def test_folders_may_be_urls(tmp_path, monkeypatch):
    studio = fsspec.filesystem("studio")
    for name in ("/faces/a.jpg", "/faces/.hidden", "/faces/more/c.jpg", "/faces/b.jpg"):
        studio.pipe_file(name, b"1")
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices" / "x.wav").write_bytes(b"1")
    rows = folder_rows("studio://faces", tmp_path / "voices", None, "studio://out/{portrait}_{audio}.mp4")
    with at_hand(rows[1].job, Copies()) as here, open(here.portrait, "rb") as file:
        assert os.path.basename(here.portrait) == "b.jpg" and file.read() == b"1"
    assert [row.output for row in rows] == ["studio://out/a_x.mp4", "studio://out/b_x.mp4"]
    with pytest.raises(InputError, match="--audios is studio://none, which cannot be read: there is no such"):
        folder_rows("studio://faces", "studio://none")


def test_a_video_in_the_portraits_place_may_be_behind_a_url(tmp_path, tiny_checkpoint):
    fsspec.filesystem("studio").pipe_file("/in/talk.mp4", b"pictures")
    clip = job(tmp_path, tiny_checkpoint, "a.mp4", portrait=None, audio=None, video="studio://in/talk.mp4")
    with at_hand(clip, Copies()) as here:
        with open(here.video, "rb") as file:
            assert file.read() == b"pictures"


@pytest.mark.parametrize(
    "url, words",
    [
        ("studio://in/none.jpg", "portrait is studio://in/none.jpg, which cannot be read: there is no such file"),
        ("nowhere://in/a.jpg", "cannot be read: .*[Pp]rotocol.*nowhere"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, tiny_checkpoint, url, words):
    clip = job(tmp_path, tiny_checkpoint, "a.mp4", portrait=url)
    with pytest.raises(InputError, match=words), at_hand(clip, Copies()):
        pass


def test_an_output_that_cannot_be_written_is_found_before_the_work(tmp_path, tiny_checkpoint):
    windows = []
    clip = job(tmp_path, tiny_checkpoint, "a.mp4", output=f"file://{tmp_path}/none/a.mp4")
    outcome = Engine(windows.append).make(clip)
    assert outcome.status == FAILED and windows == []
    assert "none/a.mp4, which cannot be written: there is no such file or folder" in outcome.reason
    fsspec.filesystem("studio").pipe_file("/out/a.mp4/b.txt", b"1")
    outcome = Engine().make(job(tmp_path, tiny_checkpoint, "a.mp4", output="studio://out/a.mp4"))
    assert "it is a folder" in outcome.reason


def test_without_fsspec_it_says_what_to_install(tmp_path, tiny_checkpoint, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(InputError, match="pip install fsspec"), at_hand(urls_job(tmp_path, tiny_checkpoint), Copies()):
        pass


def test_copies_in_use_stay_and_the_oldest_others_go(tmp_path):
    copies = Copies(most=1)
    held = copies.of("studio://in/portrait.jpg", "portrait")
    other = copies.of("studio://in/speech.flac", "audio").path
    assert copies.of("studio://in/speech.flac", "audio").path == other and os.path.basename(other) == "speech.flac"
    assert os.path.exists(held.path)
    path = held.path
    del held
    assert not os.path.exists(path) and os.path.exists(other)


def test_urls_are_no_paths():
    assert all(map(is_url, ("s3://bucket/a.mp4", "file:///a", "memory://a")))
    assert not any(map(is_url, ("a.mp4", "C:/a.mp4", "c://a.mp4", "/a://b", "clip:a.mp4", "s3://", None)))
    assert staging_folder("s3://a/b.mp4") != staging_folder("s3://a/c.mp4")
    assert urls.staging_folder("s3://a/b.mp4").name.isalnum()
