"""What DICE-Talk Audio Features takes and refuses, with a stand-in for the checkpoint."""

import importlib

import pytest
import torch


class Parts:
    audio_token_bytes = 4 * 32 * 1024

    def audio_tokens(self, waveform, on_chunk):
        on_chunk(0, 1)
        return torch.zeros(len(waveform) // 1280, 32, 1024), torch.zeros(1, 32, 1024)


def run(pack, audio, start=0.0, length=0.0):
    node = importlib.import_module(f"{pack.__name__}.nodes.speech").DiceTalkAudioFeatures
    return node.execute(Parts(), audio, start, length).args


def sound(seconds=2.0, rate=44100, channels=2, batch=1):
    return {"waveform": torch.rand(batch, channels, round(seconds * rate)) / 10, "sample_rate": rate}


def test_piece_and_its_sound_end_together(pack):
    tokens, frames, seconds, spoken, fps = run(pack, sound(), start=0.5, length=1.0)
    assert frames == len(tokens.tokens) == 12
    assert seconds == pytest.approx(12 / 12.5) and fps == 12.5
    assert spoken["waveform"].shape == (1, 2, round(0.96 * 44100)) and spoken["sample_rate"] == 44100


@pytest.mark.parametrize(
    "audio, options, problem",
    [
        (None, {}, "no sound track"),
        (sound(batch=2), {}, "batch of 2 clips"),
        (sound(), {"start": 3.0}, "start is 3 s, but the audio lasts 2.00 s"),
        (sound(), {"start": 1.95}, "one video frame takes 0.080 s"),
        ({"waveform": torch.full((1, 1, 16000), float("nan")), "sample_rate": 16000}, {}, "not finite numbers"),
    ],
)
def test_what_cannot_be_used_is_named(pack, audio, options, problem):
    with pytest.raises(ValueError, match=problem):
        run(pack, audio, **options)
