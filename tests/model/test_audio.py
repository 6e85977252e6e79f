import json
import math

import numpy as np
import pytest
import torch
from project import STATE_DICTS
from safetensors.torch import save_file

from dicetalk.checkpoints.whisper import load_whisper_encoder
from dicetalk.emotion.options import FPS
from dicetalk.errors import InputError
from dicetalk.model import audio
from dicetalk.model.audio import AudioProjection, audio_features, feature_windows, num_frames, resample


def tiny_config(**changes):
    from transformers import WhisperConfig

    settings = {
        "d_model": 8,
        "encoder_layers": 4,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 8,
        "num_mel_bins": 8,
    }
    return WhisperConfig(**(settings | changes))


def tiny_encoder(**changes):
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(0)
    return WhisperEncoder(tiny_config(**changes)).eval()


def write_folder(folder, prefix="model.encoder.", binary=False, encoder=None, config=None):
    encoder = encoder or tiny_encoder()
    folder.mkdir(exist_ok=True)
    weights = {f"{prefix}{name}": tensor.clone() for name, tensor in encoder.state_dict().items()}
    if prefix:
        weights["model.decoder.layer_norm.weight"] = torch.ones(8)
    config = encoder.config.to_dict() if config is None else config
    (folder / "config.json").write_text(json.dumps(config))
    if binary:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors")
    return encoder


@pytest.fixture
def encoder():
    return tiny_encoder()


def noise(samples, seed=0):
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_frames_last_80_ms():
    lengths = (0, 1, 1279, 1280, 1281, 1300, 2559, 2560, 16000)
    assert [num_frames(samples) for samples in lengths] == [0, 1, 1, 1, 1, 2, 2, 2, 13]
    assert [num_frames(samples, published=True) for samples in lengths] == [0, 0, 0, 1, 1, 1, 1, 2, 12]


def test_the_end_of_speech_is_heard(encoder):
    speech = noise(19180)  # 1.199 s
    features = audio_features(encoder, speech)
    assert len(features) == 15
    filled = audio_features(encoder, torch.cat([speech, torch.zeros(20)]))
    assert torch.equal(features, filled), "silence fills the last frame"
    published = audio_features(encoder, speech, published=True)
    assert len(published) == 14 and torch.equal(published[:12], features[:12])


def test_whole_frames_are_heard_as_published(encoder):
    speech = noise(32 * 16000)
    assert torch.equal(audio_features(encoder, speech), audio_features(encoder, speech, published=True))


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 44099, 47999, 48000, 96000])
@pytest.mark.parametrize("frames", [1, 5, 15, 12345])
def test_whole_frames_at_an_odd_rate_stay_as_many(rate, frames):
    for samples in {math.floor(frames * 0.08 * rate), math.ceil(frames * 0.08 * rate)}:
        assert num_frames(len(resample(torch.zeros(samples), rate))) == frames


def test_features_have_one_window_per_frame_and_zeros_beyond_the_ends(encoder):
    features = audio_features(encoder, noise(15360))
    assert features.shape == (12, 10, 5, 8) and features.dtype == torch.float32
    assert not features[0, :4].any() and features[0, 4:].all(dim=-1).all(dim=-1).all()
    assert torch.equal(features[1, :6], features[0, 4:])
    # Of the 48 positions the last frame sees the last eight, and zeros after them.
    assert features[-1, :8].any(dim=-1).all() and not features[-1, 8:].any()


def test_last_state_is_the_normalized_one(encoder):
    states = audio_features(encoder, noise(16000))[3]
    assert torch.allclose(states[:, -1].mean(dim=-1), torch.zeros(10), atol=1e-6)
    assert not torch.allclose(states[:, -2].mean(dim=-1), torch.zeros(10), atol=1e-2)


def test_chunks_of_30_seconds_are_encoded_on_their_own(encoder):
    waveform = noise(30 * 16000 + 16000)
    whole = audio_features(encoder, waveform)
    second = audio_features(encoder, waveform[30 * 16000 :])
    # Frame 376 sees positions 1500 to 1509, all of the second chunk: its positions 0 to 9, as frame 1 does on its own.
    assert torch.allclose(whole[376], second[1], atol=1e-6)


def test_a_last_chunk_too_short_for_a_position_is_not_encoded(encoder):
    calls = []

    def tell(done, total):
        calls.append((done, total))

    audio_features(encoder, noise(30 * 16000 + 639), on_chunk=tell, published=True)
    assert calls == [(0, 1), (1, 1)]
    audio_features(encoder, noise(30 * 16000 + 8), on_chunk=tell)
    assert calls[2:] == [(0, 1), (1, 1)]


def test_on_chunk_can_cancel(encoder):
    class Cancelled(Exception):
        pass

    seen = []

    def cancel(done, total):
        seen.append((done, total))
        if done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        audio_features(encoder, noise(61 * 16000), on_chunk=cancel)
    assert seen == [(0, 3), (1, 3)]


def test_dtype_and_device_can_be_overridden(encoder):
    seen = []
    encoder.conv1.register_forward_pre_hook(lambda module, args: seen.append((args[0].dtype, args[0].device.type)))
    audio_features(encoder, noise(3200))
    with pytest.raises(RuntimeError):  # float32 weights meet a bfloat16 input: the argument has been obeyed
        audio_features(encoder, noise(3200), dtype=torch.bfloat16)
    assert seen == [(torch.float32, "cpu"), (torch.bfloat16, "cpu")]
    half = audio_features(encoder.to(torch.bfloat16), noise(3200))
    assert seen[-1] == (torch.bfloat16, "cpu") and half.dtype == torch.float32


def test_silence_is_fine(encoder):
    assert torch.isfinite(audio_features(encoder, torch.zeros(16000))).all()


@pytest.mark.parametrize(
    "waveform, words",
    [
        (torch.zeros(0), "one video frame"),
        (torch.zeros(2, 16000), "mono"),
        (torch.full((16000,), float("nan")), "not finite"),
        (torch.cat([torch.zeros(16000), torch.tensor([float("inf")])]), "not finite"),
    ],
)
def test_unusable_audio_is_named(encoder, waveform, words):
    with pytest.raises(InputError, match=words):
        audio_features(encoder, waveform)


def test_resample_mixes_and_keeps_a_tone():
    time = np.arange(48000) / 48000
    tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    mono = resample(torch.from_numpy(np.stack([tone, np.zeros_like(tone)])), 48000)
    assert mono.shape == (16000,) and mono.dtype == torch.float32
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(mono.numpy() - expected)[200:-200].max() < 1e-3


def test_resample_leaves_16_khz_alone():
    waveform = noise(1000)
    assert torch.equal(resample(waveform, 16000), waveform)


@pytest.mark.parametrize(
    "waveform, rate, words",
    [
        (torch.zeros(1, 2, 3), 16000, "shape"),
        (torch.zeros(2, 0), 16000, "at least one sample"),
        (torch.zeros(2, 100), 0, "rate"),
        (torch.zeros(2, 100), float("nan"), "rate"),
        (torch.full((100,), float("nan")), 44100, "not finite"),
    ],
)
def test_resample_names_what_it_cannot_use(waveform, rate, words):
    with pytest.raises(InputError, match=words):
        resample(waveform, rate)


@pytest.mark.parametrize("prefix", ["model.encoder.", "encoder.", ""])
@pytest.mark.parametrize("binary", [False, True])
def test_whisper_folder_loads(tmp_path, prefix, binary):
    original = write_folder(tmp_path, prefix, binary)
    state = torch.random.get_rng_state()
    loaded = load_whisper_encoder(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    waveform = noise(16000)
    assert torch.allclose(audio_features(loaded, waveform), audio_features(original, waveform), atol=1e-5)


def test_whisper_loads_in_the_dtype_asked_for(tmp_path):
    write_folder(tmp_path)
    loaded = load_whisper_encoder(tmp_path, torch.float16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float16}


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(InputError, match=r"config\.json is missing.*dicetalk download"):
        load_whisper_encoder(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_a_broken_config_is_named(tmp_path, text):
    write_folder(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        load_whisper_encoder(tmp_path)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model_type": "bert"}, "'bert' model, not of Whisper"),
        ({"encoder_layers": 6}, "6 layers"),
        ({"max_source_positions": 750}, "750 positions"),
        ({"d_model": "wide"}, "usable Whisper"),
        ({"encoder_attention_heads": 3}, "usable Whisper"),
    ],
)
def test_a_config_of_another_model_is_named(tmp_path, changes, words):
    write_folder(tmp_path, config=tiny_config().to_dict() | changes)
    with pytest.raises(InputError, match=words):
        load_whisper_encoder(tmp_path)


def test_missing_weights_are_named(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load_whisper_encoder(tmp_path)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>", None])
def test_damaged_weights_are_named(tmp_path, binary, content):
    write_folder(tmp_path, binary=binary)
    path = tmp_path / ("pytorch_model.bin" if binary else "model.safetensors")
    path.write_bytes(path.read_bytes()[:-500] if content is None else content)
    with pytest.raises(InputError, match=path.name):
        load_whisper_encoder(tmp_path)


def test_a_pickle_that_asks_for_code_is_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "attacked"), "w"))

    write_folder(tmp_path, binary=True)
    torch.save({"model.encoder.conv1.weight": Attack()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin"):
        load_whisper_encoder(tmp_path)
    assert not (tmp_path / "attacked").exists()


def test_weights_that_do_not_fit_the_config_are_named(tmp_path):
    write_folder(tmp_path, encoder=tiny_encoder(encoder_ffn_dim=16), config=tiny_config().to_dict())
    with pytest.raises(InputError, match=r"fc1\.weight has shape \(16, 8\) instead of \(8, 8\)"):
        load_whisper_encoder(tmp_path)


def test_weights_without_an_encoder_are_named(tmp_path):
    write_folder(tmp_path)
    save_file({"something.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="no Whisper encoder"):
        load_whisper_encoder(tmp_path)


def test_projection_has_the_published_names_and_shapes():
    published = json.loads(STATE_DICTS.read_text())["audio_linear"]
    with torch.device("meta"):
        projection = AudioProjection()
    shapes = {name: list(tensor.shape) for name, tensor in projection.state_dict().items()}
    assert shapes == published


def test_projection_of_other_sizes():
    projection = AudioProjection(window=10, layers=5, width=8, hidden=16, tokens=4, dim=12)
    assert projection(torch.zeros(3, 10, 5, 8)).shape == (3, 4, 12)
    assert torch.equal(projection.unconditional(), projection(torch.zeros(1, 10, 5, 8)))
    assert projection.to(torch.float64).unconditional().dtype == torch.float64


def test_projection_names_features_of_another_whisper():
    projection = AudioProjection(width=8, hidden=16, tokens=4, dim=12)
    with pytest.raises(InputError, match="belong together"):
        projection(torch.zeros(3, 10, 7, 12))


def test_the_names_in_the_module_agree():
    assert audio.SAMPLE_RATE / FPS == audio.SAMPLES_PER_FRAME


def test_pieces_are_the_whole_and_hold_no_more_than_their_30_seconds(encoder):
    waveform = noise(65 * 16000)
    pieces = list(feature_windows(encoder, waveform))
    assert [len(piece) for piece in pieces] == [374, 375, 64]
    assert torch.equal(torch.cat(pieces), audio_features(encoder, waveform))
    assert max(piece.untyped_storage().nbytes() for piece in pieces) <= 4 * 5 * 8 * (1500 + 10)
