"""What DICE-Talk Audio Features takes and refuses, with a stand-in for the checkpoint."""

import importlib
import struct

import av
import numpy as np
import pytest
import torch

from dicetalk.media.audio import load_audio
from dicetalk.model.audio import num_frames


class Parts:
    audio_token_bytes = 4 * 32 * 1024

    def audio_tokens(self, waveform, on_chunk):
        on_chunk(0, 1)
        self.heard = waveform
        return torch.zeros(num_frames(len(waveform)), 32, 1024), torch.zeros(1, 32, 1024)


def run(pack, audio, start=0.0, length=0.0, parts=None):
    node = importlib.import_module(f"{pack.__name__}.nodes.speech").DiceTalkAudioFeatures
    return node.execute(parts or Parts(), audio, start, length).args


def sound(seconds=2.0, rate=44100, channels=2, batch=1):
    return {"waveform": torch.rand(batch, channels, round(seconds * rate)) / 10, "sample_rate": rate}


def test_piece_and_its_sound_end_together(pack):
    tokens, frames, seconds, spoken, fps = run(pack, sound(), start=0.5, length=1.0)
    assert frames == len(tokens.tokens) == 13
    assert seconds == pytest.approx(13 / 12.5) and fps == 12.5
    assert spoken["waveform"].shape == (1, 2, round(1.04 * 44100)) and spoken["sample_rate"] == 44100


@pytest.mark.parametrize("seconds, frames", [(1.199, 15), (1.2, 15), (1.201, 16), (0.04, 1)])
@pytest.mark.parametrize("rate", [44100, 22050])
def test_nothing_spoken_is_lost(pack, seconds, frames, rate):
    given = sound(seconds, rate)
    _, count, _, spoken, _ = run(pack, given)
    assert count == frames
    samples = given["waveform"].shape[-1]
    assert torch.equal(spoken["waveform"][:, :, :samples], given["waveform"])
    assert not spoken["waveform"][:, :, samples:].any()


def test_what_the_model_hears_is_what_the_video_plays(pack):
    voice = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32))
    plain = Parts()
    run(pack, {"waveform": voice[None, None], "sample_rate": 48000}, parts=plain)
    for channels in ((voice, -voice), (3 * 32768 * voice,), (10 * voice,)):
        parts = Parts()
        given = {"waveform": torch.stack(channels)[None], "sample_rate": 48000}
        spoken = run(pack, given, parts=parts)[3]["waveform"][0, :, :48000]
        assert np.corrcoef(parts.heard, plain.heard)[0, 1] > 0.9999
        assert spoken.abs().max() <= 1.00001 and all(np.corrcoef(each, voice)[0, 1] > 0.9999 for each in spoken)


def test_whole_numbers_are_on_the_scale_of_their_type(pack):
    voice = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)).clamp(-0.99, 0.99)
    for kind, number in ((torch.int16, 2**15), (torch.int32, 2**31)):
        parts = Parts()
        run(pack, {"waveform": (voice.double() * number).to(kind)[None, None], "sample_rate": 16000}, parts=parts)
        torch.testing.assert_close(parts.heard, voice, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "audio, options, problem",
    [
        (None, {}, "no sound track"),
        (sound(batch=2), {}, "batch of 2 clips"),
        (sound(), {"start": 3.0}, "start is 3 s, but the audio lasts 2.00 s"),
        ({"waveform": torch.zeros(1, 16000), "sample_rate": 16000}, {}, r"waveform of \(1, 16000\), and a tensor of"),
        ({"waveform": torch.zeros(16000), "sample_rate": 16000}, {}, r"waveform of \(16000,\), and a tensor of"),
        ({"waveform": [0.0] * 16000, "sample_rate": 16000}, {}, "waveform of list, and a tensor of"),
        ({"waveform": torch.zeros(1, 0, 16000), "sample_rate": 16000}, {}, "no sound at all"),
        ({"waveform": torch.zeros(1, 1, 16000)}, {}, "audio is no AUDIO"),
        ([torch.zeros(1, 1, 16000), 16000], {}, "audio is no AUDIO"),
        (torch.zeros(1, 1, 16000), {}, "audio is no AUDIO"),
        ({"waveform": torch.zeros(1, 1, 16000), "sample_rate": None}, {}, "sample_rate None"),
        ({"waveform": torch.zeros(1, 1, 16000), "sample_rate": float("nan")}, {}, "sampling rate of audio is nan"),
        ({"waveform": torch.full((1, 1, 16000), float("nan")), "sample_rate": 16000}, {}, "not finite numbers"),
    ],
)
def test_what_cannot_be_used_is_named(pack, audio, options, problem):
    with pytest.raises(ValueError, match=problem):
        run(pack, audio, **options)


def test_silence_gets_a_warning_and_speech_none(pack, caplog):
    run(pack, sound())
    assert "silent" not in caplog.text
    silent = {"waveform": torch.zeros(1, 1, 32000), "sample_rate": 16000}
    assert run(pack, silent)[1] == 25
    assert "audio is silent" in caplog.text


def test_noise_that_load_audio_makes_of_a_wav_is_refused(pack, comfy_nodes, tmp_path):
    """Of samples of 24 bits in 32, which the command line reads."""
    from comfy_extras.nodes_audio import load

    samples = (np.random.default_rng(0).normal(0, 0.1, 48000) * 2**31).astype("<i4") & ~255
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 48000, 192000, 4, 32, 22, 24, 0)
    form += bytes.fromhex("0100000000001000800000aa00389b71")
    body = b"WAVEfmt " + struct.pack("<I", 40) + form + b"data" + struct.pack("<I", samples.nbytes) + samples.tobytes()
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    waveform, rate = load(str(tmp_path / "a.wav"))
    with pytest.raises(ValueError, match="audio holds samples that are not finite numbers"):
        run(pack, {"waveform": waveform[None], "sample_rate": rate})
    assert np.abs(load_audio(tmp_path / "a.wav")).max() < 1


def test_what_load_audio_reads_otherwise_than_the_command_line(comfy_nodes, tmp_path):
    """WAV of 8 bits, and a file whose rate changes: docs/inputs.md says so."""
    from comfy_extras.nodes_audio import load

    tone = np.sin(2 * np.pi * 220 * np.arange(16000) / 16000)
    for name, codec, rate in (("8.wav", "pcm_u8", 16000), ("1.aac", "aac", 44100), ("2.aac", "aac", 22050)):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(codec, rate=rate, layout="mono")
            form = "u8" if codec == "pcm_u8" else "fltp"
            samples = (tone * 100 + 128).astype(np.uint8) if form == "u8" else tone.astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples[None], format=form, layout="mono")
            frame.sample_rate = rate
            container.mux(stream.encode(frame) + stream.encode(None))
    with pytest.raises(ValueError, match="Unsupported wav dtype"):
        load(str(tmp_path / "8.wav"))
    assert load_audio(tmp_path / "8.wav").std() > 0.5

    joined = tmp_path / "joined.aac"
    joined.write_bytes((tmp_path / "1.aac").read_bytes() + (tmp_path / "2.aac").read_bytes())
    waveform, rate = load(str(joined))
    assert len(load_audio(joined)) / 16000 > 1.2 * waveform.shape[1] / rate
