"""DICE-Talk Dialogue: whose speech, face and emotion go where; with stand-ins for the sampler and the encoders."""

import importlib
from types import SimpleNamespace

import pytest
import torch
from test_portrait_node import ClipVision
from test_portrait_node import Vae as Encoder

FACES = "20,20,60,60; 120,20,160,60"
RATE = 16000


class Vae(Encoder):
    first_stage_model = None  # which is no temporal one


class Parts:
    def audio_tokens(self, waveform, on_chunk):
        return waveform, torch.zeros(1)


@pytest.fixture(scope="module")
def module(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.dialogue")


@pytest.fixture
def made(module, monkeypatch):
    """What each person was sampled from."""
    persons = []

    def sample(**given):
        persons.append(SimpleNamespace(**given))
        frames = -(-len(given["audio_features"].tokens) // 1280)
        return torch.full((frames, 4, 8, 8), len(persons) / 4)

    monkeypatch.setattr(module, "sample", sample)
    monkeypatch.setattr(module, "shown", lambda *args: None)
    monkeypatch.setattr(module, "say", lambda *args: None)
    return persons


def audio(*channels, rate=RATE):
    return {"waveform": torch.stack([channel.float() for channel in channels])[None], "sample_rate": rate}


def loud(seconds, value=0.3, rate=RATE):
    return torch.full((round(seconds * rate),), value)


@torch.inference_mode()
def run(module, *audios, turns="", faces=FACES, emotions=2, seed=7):
    sounds = dict(zip(module.AUDIO_NAMES, audios))
    feelings = {f"emotion_{letter}": f"feeling {letter}" for letter in "abcd"[:emotions]}
    image = torch.zeros(1, 99, 181, 3)
    (video,) = module.DiceTalkDialogue.execute(
        *("model", Parts(), ClipVision(), Vae(), image, feelings, sounds, turns, faces),
        *(128, 0.5, 0.1, 3.0, 6.0, seed, 25, False),
    ).args
    return video


def test_a_recording_each(module, made):
    video = run(module, audio(loud(0.4)), audio(loud(0.2, 0.1, 8000), rate=8000))
    first, second = made
    assert (first.emotion, second.emotion, first.seed, second.seed) == ("feeling a", "feeling b", 7, 8)
    assert first.portrait.prepared.face_box == (20, 20, 60, 60)
    assert second.portrait.prepared.face_box == (120, 20, 160, 60)
    one, two = (person.audio_features.tokens for person in made)
    assert len(one) == len(two) == 6400 and one[1000:5000].min() > 0.25
    assert two[500:2500].mean() == pytest.approx(0.1, abs=0.02) and two[4000:].abs().max() == 0
    sound = video._audio["waveform"]
    assert video._audio["sample_rate"] == RATE and sound[0, 0, 1600] == pytest.approx(0.4, abs=0.05)
    assert sound[0, 0, 5000] == pytest.approx(0.3, abs=0.02) and len(video._latents) == 5


def test_turns_and_channels(module, made):
    run(module, audio(loud(0.8)), turns="0s 1; 0.4s 2")
    one, two = (person.audio_features.tokens for person in made)
    assert one[:6000].min() > 0.25 and one[6700:].max() == 0
    assert two[:6000].max() == 0 and two[6700:].min() > 0.25
    video = run(module, audio(loud(0.4), torch.zeros(6400)))
    assert made[2].audio_features.tokens[1000:5000].min() > 0.25 and made[3].audio_features.tokens.abs().max() == 0
    assert video._audio["waveform"].shape[1] == 2  # the recording as it is


@pytest.mark.parametrize(
    "sounds, options, problem",
    [
        ([audio(loud(0.1))], {}, "audio_a has 1 channel, and there are 2 persons"),
        ([audio(loud(0.1), loud(0.1))], {}, "Channels 1 and 2 of audio_a hold the same sound"),
        ([audio(loud(0.1))] * 3, {}, "audios holds 3 recordings and emotions 2"),
        ([audio(loud(0.1))] * 2, {"turns": "0s 1"}, "turns are for one recording of all persons"),
        ([audio(loud(0.1))], {"turns": "0s 3"}, "persons 1 to 2"),
        ([audio(loud(0.1))], {"turns": "0s 1", "faces": "20,20,60,60"}, "faces names 1 and there are 2 persons"),
    ],
)
def test_what_does_not_fit_is_named_before_sampling(module, made, sounds, options, problem):
    with pytest.raises(ValueError, match=problem):
        run(module, *sounds, **options)
    assert made == []


class Decoder:
    """A VAE that decodes each latent to one grey."""

    first_stage_model = None

    def spacial_compression_decode(self):
        return 8


@pytest.mark.parametrize("smooth", [False, True])
def test_each_person_is_pasted_where_they_were_cut_from(module, monkeypatch, smooth):
    def decoded(self, start, stop):
        for latent in self._latents[start:stop]:
            yield latent[:1, :1, :1].movedim(0, -1).expand(64, 64, 3)[None]

    monkeypatch.setattr(module.LatentVideo, "_decoded", decoded)
    latents = [torch.stack([torch.full((4, 8, 8), n / 10) for n in range(3)]) + each for each in (0.1, 0.6)]
    boxes = [(10, 10, 42, 42), (60, 20, 92, 52)]
    picture = torch.full((1, 71, 101, 3), 0.05)
    video = module.DialogueVideo(latents, boxes, picture, 0.1, Decoder(), None, smooth)
    assert video.get_dimensions() == (100, 70) and video.get_frame_count() == (6 if smooth else 3)
    images = video.get_components().images
    assert images.shape == (6 if smooth else 3, 70, 100, 3)
    kept = images[::2] if smooth else images
    assert kept[:, 26, 26, 0].tolist() == pytest.approx([0.1, 0.2, 0.3], abs=0.01)
    assert kept[:, 36, 76, 0].tolist() == pytest.approx([0.6, 0.7, 0.8], abs=0.01)
    assert kept[:, 5, 50].flatten().tolist() == pytest.approx([0.05] * 9, abs=0.005)
    part = video.as_trimmed(1 / video.get_frame_rate() * (2 if smooth else 1), 0)
    assert torch.equal(part.get_components().images, images[2 if smooth else 1 :])
