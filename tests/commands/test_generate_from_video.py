"""`generate --video`: another emotion or another voice for a video."""

import json

import av
import numpy as np
import pytest
import torch
from project import DEMO
from small_jobs import job, left_over, pictures

from dicetalk.batch.engine import DONE, SKIPPED, Engine
from dicetalk.batch.rows import read_rows
from dicetalk.cli import main
from dicetalk.errors import InputError
from dicetalk.job import DENOISE, Job
from dicetalk.media.audio import load_audio
from dicetalk.media.container import read_metadata
from dicetalk.media.video import write_video
from dicetalk.model.unet import DiceTalkUNet
from dicetalk.rendering import render

FRAMES = 5
FACE = "30,20,100,110"
PORTRAIT = {"video": None, "portrait": DEMO / "portrait.jpg", "audio": DEMO / "speech.flac"}


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """A video of 0.4 s, 25 frames a second, with sound."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (2 * FRAMES, 128, 128, 3), np.uint8)
    path = tmp_path_factory.mktemp("video") / "talk.mp4"
    write_video(path, frames, 25, load_audio(DEMO / "speech.flac", 0.5, 0.4), 16000)
    return path


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint):
    from dicetalk.pipeline import DiceTalkPipeline

    return DiceTalkPipeline.from_checkpoint(tiny_checkpoint)


def light(self, sample, timestep, audio_tokens, emotion_tokens, **inputs):
    """Stands for the UNet where any function of the same inputs will do."""
    told = audio_tokens.mean(dim=(2, 3)) + emotion_tokens.mean(dim=(2, 3))
    return (0.1 * sample[:, :, :4] + 0.1 * sample[:, :, 4:] + told[:, :, None, None, None] * timestep,)


@pytest.fixture(autouse=True)
def quick(monkeypatch, pipeline):
    """Weights are loaded once; the UNet is light."""
    monkeypatch.setattr(DiceTalkUNet, "forward", light)
    monkeypatch.setattr("dicetalk.rendering.load_pipeline", lambda checkpoint, dtype, device: pipeline)


@pytest.fixture
def of_video(talk, tmp_path, tiny_checkpoint):
    """A job on that video; more is given as fields."""

    def make(name="out.mp4", **changes):
        fields = {"portrait": None, "audio": None, "length": None, "video": talk, "face": FACE, "emotion": "sad"}
        return job(tmp_path, tiny_checkpoint, name, **fields | changes)

    return make


def made(job, **more):
    said = []
    render(job, say=said.append, **more)
    return pictures(job.output), json.loads(read_metadata(job.output)["dicetalk"]), said


def test_a_video_gets_another_emotion_and_keeps_its_length_and_sound(of_video, talk, tmp_path):
    frames, metadata, _ = made(of_video())
    assert frames.shape == (FRAMES, 64, 64, 3)
    assert (metadata["video"], metadata["denoise"], metadata["emotion"]) == ("talk.mp4", DENOISE, "sad")
    assert "portrait" not in metadata and not metadata["audio"] and str(talk.parent) not in str(metadata)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(container.streams.audio) == 1
    assert np.corrcoef(load_audio(tmp_path / "out.mp4")[:6000], load_audio(talk)[:6000])[0, 1] > 0.9
    other, *_ = made(of_video("happy.mp4", emotion="happy"))
    assert not np.array_equal(frames, other)
    more, *_ = made(of_video("more.mp4", denoise=0.9))
    assert not np.array_equal(frames, more)
    assert left_over(tmp_path) == []


def test_a_video_gets_another_voice(of_video):
    frames, metadata, _ = made(of_video(audio=DEMO / "speech.flac", start=1.0, length=0.3))
    assert len(frames) == 4 and metadata["audio"] == "speech.flac"


def test_the_piece_of_its_own_sound_is_the_piece_of_its_pictures(of_video, talk, monkeypatch):
    from dicetalk.reading import streams

    starts = []
    stream_frames = streams.stream_frames
    monkeypatch.setattr(
        streams, "stream_frames", lambda *args, start, **more: starts.append(start) or stream_frames(*args, start=start)
    )
    frames, *_ = made(of_video(start=0.2, length=0.16))
    assert len(frames) == 2 and set(starts) == {0.2}
    made(of_video("dubbed.mp4", audio=talk, start=0.2))
    assert starts[-1] == 0.0


def test_an_interrupted_run_resumes_to_the_same_video(of_video, tmp_path, monkeypatch):
    from dicetalk.sampling import resume

    whole, *_ = made(of_video("whole.mp4"))
    monkeypatch.setattr(resume, "SECONDS", 0)
    forward, calls = DiceTalkUNet.forward, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    monkeypatch.setattr(DiceTalkUNet, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        made(of_video())
    with pytest.raises(InputError, match="--denoise was 0.55, now 0.7"):
        made(of_video(denoise=0.7), resume=True)
    frames, _, said = made(of_video(), resume=True)
    assert any("Resuming after step 1 of 2" in line for line in said)
    assert np.array_equal(frames, whole)


def test_a_row_of_a_table_and_what_is_there_is_skipped(of_video, talk, tmp_path, tiny_checkpoint):
    table = tmp_path / "jobs.jsonl"
    row = {"video": str(talk), "emotion": ["sad", "happy"], "output": "{portrait}_{emotion}.mp4", "face": FACE}
    row |= {"size": 64, "steps": 2, "fps": "12.5", "checkpoint": str(tiny_checkpoint), "device": "cpu"}
    table.write_text(json.dumps(row))
    rows = read_rows(table)
    assert [row.output for row in rows] == [str(tmp_path / f"talk_{emotion}.mp4") for emotion in ("sad", "happy")]
    engine = Engine()
    assert engine.make(rows[0].job).status == DONE and engine.make(rows[0].job).status == SKIPPED
    assert engine.make(of_video("talk_sad.mp4", denoise=0.8)).status == DONE
    alone, *_ = made(of_video("alone.mp4", denoise=0.8))
    assert np.array_equal(pictures(tmp_path / "talk_sad.mp4"), alone)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"portrait": DEMO / "portrait.jpg"}, "portrait and video are both given"),
        ({"video": None}, "portrait is missing"),
        (
            {"video": None, "portrait": DEMO / "portrait.jpg", "audio": DEMO / "speech.flac", "denoise": 0.5},
            "denoise is",
        ),
        ({"denoise": 0}, "denoise is 0: give more than 0 and at most 1"),
        ({"denoise": 1.1}, "denoise is 1.1"),
    ],
)
def test_what_does_not_go_together_is_said(of_video, changes, words):
    with pytest.raises(InputError, match=words):
        of_video(**changes)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"audio": DEMO / "speech.flac"}, r"The speech lasts 3.52 s and the video 0.40 s: .*--length 0.40"),
        ({"video": DEMO / "speech.flac"}, "speech.flac holds sound and no pictures"),
        ({"video": DEMO / "portrait.jpg"}, "portrait.jpg has no audio track"),
        ({"video": "nowhere.mp4"}, "video is nowhere.mp4, which does not exist"),
        ({"start": 5}, "past the end"),
    ],
)
def test_what_cannot_be_used_is_said_before_the_weights_load(of_video, monkeypatch, tmp_path, changes, words):
    monkeypatch.setattr("dicetalk.rendering.load_pipeline", lambda *_: pytest.fail("the weights were loaded"))
    with pytest.raises(InputError, match=words):
        made(of_video(**changes))
    assert list(tmp_path.iterdir()) == []


def test_its_own_file_is_not_overwritten_and_the_command_line_names_its_options(talk, capsys):
    with pytest.raises(InputError, match="output is the file that video reads"):
        Job(video=talk, output=talk).check_files()
    assert main(["generate", "--video", "a.mp4", "--portrait", "b.png", "--output", "c.mp4"]) == 2
    assert "--portrait and --video are both given" in capsys.readouterr().err
    assert main(["generate", "--output", "c.mp4"]) == 2
    assert "--portrait is missing" in capsys.readouterr().err


def test_a_job_without_a_video_has_the_digest_that_it_had():
    fields = {"portrait": "a.png", "audio": "a.wav", "output": "a.mp4"}
    assert not {"video", "denoise"} & Job(**fields).settings().keys()


def test_latents_of_frames_are_those_of_pictures(pipeline):
    from PIL import Image

    frames = np.random.default_rng(1).integers(0, 255, (2, 64, 64, 3), np.uint8)
    with torch.no_grad():
        together = pipeline._encode_frames(frames, "cpu")
        alone = [pipeline._encode_latent(Image.fromarray(frame), "cpu") for frame in frames]
    assert together.shape == (2, 4, 8, 8) and torch.equal(together, torch.cat(alone))
