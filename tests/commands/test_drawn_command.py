"""python -m dicetalk drawn: sheets and takes, and the emotion that the project's own reader finds in them."""

import av
import numpy as np
import pytest
from PIL import Image

from dicetalk import cli
from dicetalk.drawn import CLASSES, Person, Take
from dicetalk.drawn.files import write_recordings
from dicetalk.embedder.dataset import find_recordings
from dicetalk.emotion.options import NAMES
from dicetalk.media.audio import load_audio
from dicetalk.reading.landmarks import read_landmarks


@pytest.fixture
def command(monkeypatch, capsys):
    monkeypatch.setattr(cli, "COMMANDS", ("drawn", "emotion"))

    def run(*arguments):
        code = cli.main(list(map(str, arguments)))
        return code, *capsys.readouterr()

    return run


def test_a_take_comes_with_landmarks_and_portrait(command, tmp_path):
    path = tmp_path / "she.mp4"
    who = ["--person", 9, "--emotion", "surprised", "--level", 2, "--sentence", "We play music.", "--seed", 3]
    code, out, error = command("drawn", "--output", path, *who, "--size", 96)
    assert code == 0 and "person 9, surprised, level 2" in out and out.count("Wrote ") == 3, error
    take = Take(Person.of(9), "surprised", 2, "We play music.", 3)
    assert "face box, hairline to chin: " + ",".join(f"{value:g}" for value in take.face_box(96)) in out
    with av.open(str(path)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert video.streams.video[0].average_rate == 12.5
    assert len(frames) == len(take) and frames[0].shape == (96, 96, 3)
    apart = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, take.frames(96))]
    assert max(apart) < 4  # what H.264 loses
    sound = load_audio(path)[: len(take.sound)]
    assert np.corrcoef(sound, take.sound[: len(sound)])[0, 1] > 0.9
    values, times, *_ = read_landmarks(path.with_suffix(".csv"))
    np.testing.assert_allclose(values, take.blendshapes, atol=1e-4)
    np.testing.assert_allclose(times, np.arange(len(take)) / 12.5)
    with Image.open(path.with_suffix(".png")) as portrait:
        assert np.array_equal(np.asarray(portrait), take.portrait(96))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("emotion", NAMES)
def test_the_reader_finds_the_drawn_emotion(command, tmp_path, tiny_checkpoint, emotion):
    path = tmp_path / "take.mp4"
    assert command("drawn", "--output", path, "--person", 11, "--emotion", emotion, "--size", 32)[0] == 0
    landmarks = ["--landmarks", path.with_suffix(".csv"), "--checkpoint", tiny_checkpoint]
    code, out, error = command("emotion", "from-clip", path, *landmarks)
    assert code == 0 and out.splitlines()[1].split()[0] == emotion, out + error


def test_a_sheet(command, tmp_path):
    path = tmp_path / "people.png"
    code, out, error = command("drawn", "--sheet", path, "--person", 3, "--people", 2, "--size", 64, "--level", 2)
    assert code == 0 and str(path) in out, error
    with Image.open(path) as picture:
        assert picture.mode == "RGB" and picture.width > 8 * 64 and picture.height > 2 * 64
        assert len(set(picture.getdata())) > 500


def test_sentences(command):
    code, out, _ = command("drawn", "--sentences")
    assert code == 0 and len(out.splitlines()) == 32 and out.startswith(" 0  We keep the boat")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "Give --output for a take, --sheet"),
        (["--output", "take.avi"], "end its name with .mp4"),
        (["--output", "take.mp4", "--size", "65"], "The size of a video is 65: give an even number"),
        (["--output", "take.mp4", "--size", "16"], "from 32 to 1024"),
        (["--output", "take.mp4", "--person", "-1"], "The person is -1"),
        (["--output", "take.mp4", "--emotion", "bored"], "The emotion is 'bored'"),
        (["--output", "take.mp4", "--emotion", "neutral", "--level", "2"], "The level of neutral is 2"),
        (["--output", "take.mp4", "--sentence", "32"], "The sentence is 32"),
        (["--output", "take.mp4", "--sentence", "Hello"], "cannot say hello"),
        (["--output", "take.mp4", "--seed", "-5"], "The seed of a take is -5"),
        (["--recordings", "there", "--people", "0"], "--people is 0: give 1 or more"),
        (["--recordings", "there", "--takes", "-1"], "--takes is -1: give 1 or more"),
        (["--sheet", "people.jpg"], "end its name with .png"),
        (["--sheet", "people.png", "--people", "0"], "A sheet shows 1 to 64 people, not 0"),
        (["--sheet", "people.png", "--people", "65"], "A sheet shows 1 to 64 people, not 65"),
    ],
)
def test_wrong_input_is_one_line(command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, error = command("drawn", *arguments)
    assert code == 2 and message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_recordings_are_found_and_hold_what_was_drawn(command, tmp_path):
    folder = tmp_path / "recordings"
    code, out, error = command("drawn", "--recordings", folder, "--person", 5, "--people", 1, "--takes", 1)
    assert code == 0 and "Wrote 22 takes of 1 people" in out, error
    recordings = find_recordings(folder)
    assert len(recordings) == 22 and {recording.actor for recording in recordings} == {"person_5"}
    assert {(recording.emotion, int(recording.level[-1])) for recording in recordings} == set(CLASSES)
    for recording in recordings[::7]:
        sentence, seed = map(int, recording.name.split("_"))
        take = Take(Person.of(5), recording.emotion, int(recording.level[-1]), sentence, seed)
        assert recording.video is None and np.array_equal(load_audio(recording.audio), take.sound)
        values, times, *_ = read_landmarks(recording.landmarks)
        np.testing.assert_allclose(values, take.blendshapes, atol=1e-4)
        assert len(times) == len(take)


def test_recordings_with_videos(tmp_path):
    take = Take(Person.of(1), "sad", 1, "My mother left.", 2)
    ((written, path),) = write_recordings(tmp_path, [take], size=64)
    assert written is take and path.name.endswith("_2.wav")
    (recording,) = find_recordings(tmp_path)
    with av.open(str(recording.video)) as video:
        assert sum(1 for _ in video.decode(video=0)) == len(take) and video.streams.audio
