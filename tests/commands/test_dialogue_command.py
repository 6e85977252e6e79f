"""`dialogue`: several persons of one picture, each in a crop and with a track of their own."""

import json
import wave

import numpy as np
import pytest
import torch
from PIL import Image
from small_jobs import pictures

from dicetalk.batch.dialogue import render_dialogue
from dicetalk.cli import main
from dicetalk.errors import InputError
from dicetalk.job import Job
from dicetalk.media.audio import load_audio
from dicetalk.media.container import read_metadata
from dicetalk.pipeline import DiceTalkPipelineOutput

LEFT, RIGHT = (20, 20, 60, 60), (120, 20, 160, 60)
FACES = "20,20,60,60; 120,20,160,60"
RATE = 16000


class Recorder:
    """Stands for the pipeline: notes what each person is made from, and draws each in one grey."""

    def __init__(self):
        self.persons = []

    def set_progress_bar_config(self, **options):
        pass

    def __call__(self, portrait, audio, emotion, generator, **options):
        self.persons.append((portrait, np.asarray(audio), emotion.name, generator.initial_seed(), options))
        frames = -(-len(audio) // 1280)
        return DiceTalkPipelineOutput(frames=torch.full((frames, 4, 8, 8), len(self.persons) / 4))

    def decode(self, latents, chunk_size):
        yield latents[:, :1, :1, :1].expand(-1, 3, 64, 64)


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr("dicetalk.batch.dialogue.load_pipeline", lambda *args: recorder)
    return recorder


def write_wav(path, *channels):
    samples = (np.stack(channels, axis=1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((len(channels), 2, RATE, len(samples), "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def tone(hertz, seconds):
    return 0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


@pytest.fixture
def dialogue(tiny_checkpoint, tmp_path, capsys):
    """Runs `dicetalk dialogue` on a black picture of 181 × 99 pixels; returns exit code, output and error."""
    Image.new("RGB", (181, 99)).save(tmp_path / "two.png")

    def run(*audios, emotions=("happy", "sad"), **changes):
        options = {
            "picture": tmp_path / "two.png",
            "faces": FACES,
            "output": tmp_path / "talk.mp4",
            "checkpoint": tiny_checkpoint,
            "size": 64,
            "steps": 2,
            "seed": 5,
            "fps": "12.5",
            "device": "cpu",
        } | changes
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        for name, values in (("emotion", emotions), ("audio", audios)):
            arguments += [part for value in values for part in (f"--{name}", str(value))]
        code = main(["dialogue", *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def loud(audio, start, stop):
    return float(np.abs(audio[round(start * RATE) : round(stop * RATE)]).max())


def test_each_person_has_their_own_recording_face_and_emotion(dialogue, recorder, tmp_path):
    first, second = (write_wav(tmp_path / f"{hertz}.wav", tone(hertz, s)) for hertz, s in ((300, 0.4), (700, 0.24)))
    code, out, err = dialogue(first, second)
    assert code == 0, err
    (left, one, happy, seed, options), (right, two, sad, next_seed, _) = recorder.persons
    assert (left.face_box, right.face_box) == (LEFT, RIGHT) and (happy, sad) == ("happy", "sad")
    assert (seed, next_seed) == (5, 6) and options["num_inference_steps"] == 2
    assert len(one) == len(two) == 6400 and loud(two, 0.3, 0.4) < 0.01 < 0.3 < loud(two, 0, 0.2)
    frames = pictures(tmp_path / "talk.mp4")
    assert frames.shape == (5, 98, 180, 3) and "5 frames" in out  # video needs even sides
    greys = [int(frames[:, 30:50, x : x + 20].mean()) for x in (30, 130, 80)]
    assert greys == pytest.approx([64, 128, 0], abs=3)
    heard = load_audio(tmp_path / "talk.mp4")
    spectrum = np.abs(np.fft.rfft(heard[: round(0.24 * RATE)]))
    assert spectrum[round(300 * 0.24)] > 100 and spectrum[round(700 * 0.24)] > 100
    kept = json.loads(read_metadata(tmp_path / "talk.mp4")["dicetalk"])
    assert kept["emotions"] == ["happy", "sad"] and kept["audios"] == ["300.wav", "700.wav"]
    assert str(tmp_path) not in str(kept)


def test_a_microphone_wired_the_wrong_way_is_heard(dialogue, recorder, tmp_path):
    voice = tone(300, 0.4)
    wrong, right = write_wav(tmp_path / "wrong.wav", voice, -voice), write_wav(tmp_path / "right.wav", 0 * voice)
    code, _, err = dialogue(wrong, right)
    assert code == 0, err
    assert loud(recorder.persons[0][1], 0, 0.4) > 0.3
    assert loud(load_audio(tmp_path / "talk.mp4"), 0, 0.4) > 0.3


def test_turns_silence_the_one_who_listens(dialogue, recorder, tmp_path):
    both = write_wav(tmp_path / "both.wav", tone(300, 0.8))
    code, _, err = dialogue(both, turns="0s 1; 0.4s 2")
    assert code == 0, err
    one, two = (person[1] for person in recorder.persons)
    assert loud(one, 0, 0.35) > 0.3 and loud(one, 0.45, 0.8) == 0
    assert loud(two, 0, 0.35) == 0 and loud(two, 0.45, 0.8) > 0.3


def test_channels_are_persons(dialogue, recorder, tmp_path):
    stereo = write_wav(tmp_path / "stereo.wav", tone(300, 0.4), np.zeros(round(0.4 * RATE)))
    code, _, err = dialogue(stereo)
    assert code == 0, err
    one, two = (person[1] for person in recorder.persons)
    assert loud(one, 0, 0.4) > 0.3 and loud(two, 0, 0.4) == 0


def test_what_cannot_be_used_is_said_in_one_line(dialogue, recorder, tmp_path):
    mono, same = write_wav(tmp_path / "m.wav", tone(300, 0.2)), write_wav(tmp_path / "s.wav", *2 * [tone(300, 0.2)])
    for audios, changes, words in (
        ([mono], {}, "m.wav has 1 channel, and there are 2 persons"),
        ([same], {}, "Channels 1 and 2 of"),
        ([mono, mono, mono], {}, "There are 3 recordings and 2 persons"),
        ([mono, mono], {"turns": "0s 1"}, "turns are for one recording"),
        ([mono], {"turns": "0s 3"}, "persons 1 to 2"),
        ([mono], {"turns": "0s 1", "faces": "20,20,60,60"}, "faces names 1 and there are 2 persons"),
        ([mono], {"emotions": ["happy"]}, "two persons or more"),
        ([mono], {"turns": "0s 1", "emotions": ["happy", "sadd"]}, "did you mean sad"),
        ([mono], {"turns": "0s 1", "size": 3}, "--size is 3"),
        ([mono], {"turns": "0s 1", "feather": 2}, "feather must be a number from 0 to 0.5"),
        ([mono], {"turns": "0s 1", "picture": "no.png"}, "no.png, which does not exist"),
    ):
        code, _, err = dialogue(*audios, **changes)
        assert code == 2 and words in err and len(err.strip().splitlines()) == 1, (words, err)
        assert not (tmp_path / "talk.mp4").exists()


def test_settings_that_a_dialogue_does_not_use_are_refused(tmp_path):
    job = Job(portrait="two.png", audio="a.wav", output=tmp_path / "talk.mp4", sampler="dpmpp_2m", meter=True)
    with pytest.raises(InputError, match="does not use meter and sampler: leave that out"):
        render_dialogue(job, ["happy", "sad"], ["a.wav", "b.wav"])


def test_the_tiny_checkpoint_makes_one(dialogue, tmp_path):
    both = write_wav(tmp_path / "both.wav", tone(300, 0.16))
    code, out, err = dialogue(both, turns="0s 1; 0.08s 2", fps="25", steps=1)
    assert code == 0, err
    assert "untrained" in out
    frames = pictures(tmp_path / "talk.mp4")
    assert frames.shape == (4, 98, 180, 3) and frames[:, :, 85:95].max() < 12
    assert frames[:, 30:50, 30:50].std() > 5 and frames[:, 30:50, 130:150].std() > 5
