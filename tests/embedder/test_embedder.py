"""The learned embedder: network, losses, features, files, and reading clips."""

import dataclasses
import gc
import json
import math
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import clips
import numpy as np
import pytest
import torch
from emotions import make_priors
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dicetalk.checkpoints.whisper import load_whisper_encoder
from dicetalk.embedder.choice import choose_embedder
from dicetalk.embedder.features import PIECE, pieces, whisper_digest, whole
from dicetalk.embedder.files import load_embedder, read_embedder, save_embedder
from dicetalk.embedder.losses import IdentityCritic, anchor_loss, contrastive_loss, reverse_gradient
from dicetalk.embedder.model import RATE, EmbedderConfig, EmotionEmbedder
from dicetalk.embedder.reader import HOP, posterior
from dicetalk.emotion.options import NAMES
from dicetalk.emotion.timeline import EmotionTimeline
from dicetalk.emotion.value import Emotion
from dicetalk.errors import InputError
from dicetalk.model.audio import SAMPLE_RATE
from dicetalk.reading.clip import BLENDSHAPES, Clip, array_stream

SMALL = EmbedderConfig(NAMES, audio_features=16, width=16, heads=2, layers=1, code=8)


@pytest.fixture(scope="module")
def priors():
    return make_priors()


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint):
    return load_whisper_encoder(tiny_checkpoint / "whisper-tiny")


def make_model(priors, config=SMALL):
    torch.manual_seed(0)
    model = EmotionEmbedder(config).eval().requires_grad_(False)
    model.anchors.copy_(torch.stack([priors[name].mean for name in config.emotions]))
    return model


@pytest.fixture(scope="module")
def path(priors, encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("embedder") / "small.safetensors"
    save_embedder(path, make_model(priors), 2.0, whisper_digest(encoder), {"clips": "none"})
    return path


def make_batch(count=3, tokens=5, config=SMALL):
    generator = torch.Generator().manual_seed(1)
    visual = torch.rand(count, tokens, config.visual_features, generator=generator)
    audio = torch.randn(count, tokens, config.audio_features, generator=generator)
    return visual, torch.ones(count, tokens, dtype=torch.bool), audio, torch.ones(count, tokens, dtype=torch.bool)


# The network


def test_masked_tokens_have_no_effect(priors):
    model = make_model(priors)
    visual, visual_mask, audio, audio_mask = make_batch()
    visual_mask[:, 3:], audio_mask[:, 4:] = False, False
    expected = model(visual, visual_mask, audio, audio_mask)
    visual[:, 3:], audio[:, 4:] = math.nan, 1e9
    for values, wanted in zip(model(visual, visual_mask, audio, audio_mask), expected):
        assert torch.equal(values, wanted)
    shorter = model(visual[:, :4], visual_mask[:, :4], audio[:, :4], audio_mask[:, :4])
    assert torch.allclose(shorter[0], expected[0], atol=1e-5)


def test_each_modality_matters_and_may_be_missing(priors):
    model = make_model(priors)
    visual, there, audio, _ = make_batch()
    gone = torch.zeros_like(there)
    means = [model(visual, a, audio, b)[0] for a in (there, gone) for b in (there, gone)]
    assert all(mean.isfinite().all() for mean in means)
    for number, mean in enumerate(means):
        assert not any(torch.allclose(mean, other) for other in means[:number])
    alone = model(visual, there, torch.full_like(audio, math.nan), gone)[0]
    assert torch.equal(alone, means[1])


def test_order_in_time_matters(priors):
    model = make_model(priors)
    visual, there, audio, _ = make_batch()
    assert not torch.allclose(model(visual, there, audio, there)[0], model(visual.flip(1), there, audio, there)[0])


def test_modalities_attend_to_each_other_in_both_directions(priors):
    block = make_model(priors).blocks[0]
    visual, audio = torch.randn(1, 4, 16), torch.randn(1, 4, 16)
    there = torch.ones(1, 4, dtype=torch.bool)
    seen, heard = block(visual, there, audio, there)
    assert not torch.allclose(block(visual, there, audio + 1 * torch.randn(1, 4, 16), there)[0], seen)
    assert not torch.allclose(block(visual + 1 * torch.randn(1, 4, 16), there, audio, there)[1], heard)


def test_mean_is_neutral_plus_a_residual_of_the_priors_size(priors):
    model = make_model(priors)
    assert torch.equal(model.neutral, priors["neutral"].mean)
    model.residual.weight.zero_(), model.residual.bias.fill_(1.0)
    mean, _ = model(*make_batch())
    residuals = torch.stack([priors[name].mean - model.neutral for name in NAMES])
    assert torch.allclose((mean - model.neutral).norm(dim=-1), residuals.norm(dim=-1).mean().expand(3), rtol=1e-4)


# The losses


def test_anchor_loss_is_the_gaussian_likelihood():
    mean, log_variance, anchor = torch.randn(4, 256), torch.randn(4, 256), torch.randn(4, 256)
    likelihood = torch.distributions.Normal(mean, (0.5 * log_variance).exp()).log_prob(anchor)
    expected = -likelihood.mean() - 0.5 * math.log(2 * math.pi)
    assert torch.allclose(anchor_loss(mean, log_variance, anchor), expected, rtol=1e-5)


def test_contrastive_loss_counts_only_other_actors_as_positives():
    mean, temperature = torch.randn(5, 256), 0.7
    emotions, actors = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([0, 0, 1, 0, 1])
    total = []
    for i in range(5):
        positives = [j for j in range(5) if emotions[j] == emotions[i] and actors[j] != actors[i]]
        others = [j for j in range(5) if not (emotions[j] == emotions[i] and actors[j] == actors[i])]
        logits = {j: -float(((mean[i] - mean[j]) ** 2).sum()) / (256 * temperature) for j in others}
        norm = math.log(sum(math.exp(value) for value in logits.values()))
        if positives:
            total.append(-sum(logits[j] - norm for j in positives) / len(positives))
    loss = contrastive_loss(mean, emotions, actors, temperature)
    assert len(total) == 3 and float(loss) == pytest.approx(sum(total) / 3, rel=1e-4)
    alone = contrastive_loss(mean.requires_grad_(), emotions, torch.zeros(5), temperature)
    alone.backward()
    assert alone == 0 and mean.grad.isfinite().all()


def test_gradient_comes_back_reversed():
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    passed = reverse_gradient(values, 0.5)
    passed.square().sum().backward()
    assert torch.equal(passed, values) and torch.equal(values.grad, -0.5 * 2 * values.detach())


def taught_critic(leak):
    """A critic that has seen codes with an emotion, noise, and as much of the actor as `leak` says."""
    torch.manual_seed(0)
    emotions, actors = torch.randint(2, (600,)), torch.randint(3, (600,))
    code = 5 * torch.randn(2, 8)[emotions] + torch.randn(600, 8) + leak * torch.randn(3, 8)[actors]
    critic = IdentityCritic(3, 8, 2, memory=512)
    critic(code[:512], emotions[:512], actors[:512])
    return critic, code[512:], emotions[512:], actors[512:]


def test_critic_sees_identity_and_not_emotion():
    critic, *batch = taught_critic(leak=2.0)
    assert critic(*batch) < 0.6
    critic, *batch = taught_critic(leak=0.0)
    assert 0.95 < critic(*batch) < 1.15
    critic, code, emotions, actors = taught_critic(leak=2.0)
    plain = critic(code, emotions, actors)
    moved, *batch = taught_critic(leak=2.0)
    moved.codes.mul_(100)
    assert torch.allclose(moved(100 * batch[0], *batch[1:]), plain, atol=1e-3)


def test_running_away_from_the_critic_is_not_rewarded():
    critic, code, emotions, actors = taught_critic(leak=0.0)
    away = (30 * code).requires_grad_()
    share = critic(reverse_gradient(away, 1.0), emotions, actors)
    share.backward()
    assert share.item() == pytest.approx(1 + 1.5 * 8 * (1 + 2) / 512) and not away.grad.any()
    critic, *_ = taught_critic(leak=0.0)
    near = code.clone().requires_grad_()
    critic(reverse_gradient(near, 1.0), emotions, actors).backward()
    assert near.grad.any(), "what the critic still finds is taken out"


def test_reversed_critic_takes_identity_out():
    critic, code, emotions, actors = taught_critic(leak=2.0)
    code.requires_grad_()
    before = critic(reverse_gradient(code, 1.0), emotions, actors)
    before.backward()
    critic, *_ = taught_critic(leak=2.0)
    assert critic((code - 20 * code.grad).detach(), emotions, actors) > before


# Features


def faces(frames, fps=25.0, value=0.5):
    return array_stream(np.full((frames, 52), value, np.float32), fps)


def sound(seconds, level=0.1, piece=1000):
    samples = level * np.random.default_rng(0).standard_normal(int(seconds * SAMPLE_RATE)).astype(np.float32)
    return lambda: (samples[start : start + piece] for start in range(0, len(samples), piece))


def test_visual_tokens_are_means_of_what_was_seen():
    rows = np.repeat(np.arange(8, dtype=np.float32)[:, None], 52, axis=1)
    rows[[1, 4, 5]] = np.nan
    visual, mask, audio, audio_mask = whole(Clip(blendshapes=array_stream(rows, 25.0)), None)
    assert visual.shape == (4, 52) and audio.shape == (4, 0) and not audio_mask.any()
    assert mask.tolist() == [True, True, False, True]
    assert visual[:, 0].tolist() == [0.0, 2.5, 0.0, 6.5]


@pytest.mark.parametrize("fps", [5.0, 12.5, 24.0, 60.0])
def test_any_frame_rate_gives_as_many_tokens(fps):
    visual, mask, *_ = whole(Clip(blendshapes=faces(int(4 * fps), fps)), None)
    assert mask.all() and abs(len(mask) - 50) <= 12.5 / fps and (visual == 0.5).all()


def test_one_frame_is_one_token():
    visual, mask, *_ = whole(Clip(blendshapes=faces(1)), None)
    assert visual.shape == (1, 52) and mask.all()


def test_a_still_holds_as_long_as_the_sound(encoder):
    visual, mask, audio, _ = whole(Clip(blendshapes=faces(1), audio=sound(30.0)), encoder)
    assert len(visual) == len(audio) == 375 and mask.all() and (visual == 0.5).all()
    assert not whole(Clip(blendshapes=faces(1, value=np.nan), audio=sound(30.0)), encoder)[1].any()
    assert whole(Clip(blendshapes=faces(4), audio=sound(30.0)), encoder)[1].sum() == 2, "two tokens are no still"


def test_audio_tokens_line_up_with_the_faces(encoder):
    clip = Clip(blendshapes=faces(50), audio=sound(3.0))
    visual, visual_mask, audio, audio_mask = whole(clip, encoder)
    assert len(visual) == len(audio) == 37 and audio.shape[1] == 16
    assert visual_mask.sum() == 25 and audio_mask.all()


def test_silence_is_masked(encoder):
    samples = np.concatenate([next(sound(1.0, piece=10**6)()), np.zeros(SAMPLE_RATE, np.float32)])
    _, _, _, mask = whole(Clip(audio=lambda: iter([samples])), encoder)
    assert mask[:12].all() and not mask[13:].any()
    assert not whole(Clip(audio=sound(1.0, level=0.0)), encoder)[3].any()
    assert len(whole(Clip(audio=sound(0.05)), encoder)[3]) == 0


def test_long_clips_come_in_pieces_of_one_size():
    def hours():
        for start in range(0, 2 * 3600, 10):
            yield start + np.arange(0, 10, 0.5), np.full((20, 52), 0.25, np.float32)

    sizes = [len(mask) for _, mask, _, _ in pieces(Clip(blendshapes=hours), None)]
    assert set(sizes[:-1]) == {PIECE} and abs(sum(sizes) - 2 * 3600 * 12.5) < 7


def test_sound_is_cut_the_same_however_it_comes(encoder):
    parts = [whole(Clip(audio=sound(30.0, piece=piece)), encoder)[2] for piece in (777, 10**6)]
    assert len(parts[0]) == 375 and torch.equal(*parts)


# The file


def test_file_gives_the_same_embedder(path, priors):
    file = read_embedder(path)
    assert file.temperature == 2.0 and file.provenance == {"clips": "none"} and file.model.config == SMALL
    batch = make_batch()
    for values, wanted in zip(file.model(*batch), make_model(priors)(*batch)):
        assert torch.equal(values, wanted)
    assert not any(parameter.requires_grad for parameter in file.model.parameters())


def spoiled(path, tmp_path, change):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors, metadata)
    other = tmp_path / "other.safetensors"
    save_file(tensors, other, metadata)
    return other


def set_config(**changes):
    def change(_, metadata):
        metadata["config"] = json.dumps({**json.loads(metadata["config"]), **changes})

    return change


READING = '{"temperature": 1.0, "whisper": "", "use": "both"}'


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda tensors, _: tensors.pop("anchors"), "anchors is missing"),
        (lambda tensors, _: tensors.update(more=torch.zeros(1)), "more is F32"),
        (lambda tensors, _: tensors.update(anchors=torch.zeros(8, 255)), r"anchors is F32 of shape \(8, 255\)"),
        (lambda tensors, _: tensors.update(anchors=torch.zeros(8, 256).half()), "anchors is F16"),
        (lambda tensors, _: tensors["anchors"].fill_(math.inf), "anchors holds numbers that are not finite"),
        (lambda _, metadata: metadata.update(format="other"), "not an emotion embedder"),
        (lambda _, metadata: metadata.update(version="2"), "version 1"),
        (lambda _, metadata: metadata.update(config="{"), "no readable config"),
        (lambda _, metadata: metadata.update(config="[" * 100000), "no readable config"),
        (lambda _, metadata: metadata.update(provenance="[]"), "no readable provenance"),
        (lambda _, metadata: metadata.update(reading='{"temperature": 1.0}'), "how to read"),
        (lambda _, metadata: metadata.update(reading='{"temperature": NaN, "whisper": ""}'), "how to read"),
        (lambda _, metadata: metadata.update(reading=READING.replace("both", "ears")), "use must be one of both"),
        (set_config(width=10**9), "width must be a whole number"),
        (set_config(layers=True), "layers must be a whole number"),
        (set_config(heads=3), "multiple of twice its heads"),
        (set_config(emotions=["happy", "sad"]), "must be neutral and"),
        (set_config(emotions=["neutral", "neutral"]), "each once"),
        (set_config(emotions=["neutral", "glee"]), "some of angry"),
        (set_config(emotions=["neutral", ["sad"]]), "must be names"),
        (set_config(emotions=7), "some of angry"),
        (set_config(more=1), "does not name"),
        (set_config(code=9), "do not fit its configuration"),
    ],
)
def test_spoiled_file_is_refused(path, tmp_path, change, message):
    with pytest.raises(InputError, match=message) as caught:
        load_embedder(spoiled(path, tmp_path, change))
    assert "other.safetensors" in str(caught.value)


def test_files_that_do_not_say_their_use_are_read_with_both(path, tmp_path):
    def forget(_, metadata):
        metadata["reading"] = json.dumps({"temperature": 2.0, "whisper": ""})

    assert read_embedder(spoiled(path, tmp_path, forget)).use == "both" == read_embedder(path).use


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_loaded_embedder_holds_no_file(path):
    file = read_embedder(path)
    assert str(path) not in Path("/proc/self/maps").read_text() and file.temperature == 2.0


def test_other_files_are_refused(path, tmp_path):
    other = tmp_path / "other.safetensors"
    with pytest.raises(InputError, match="no such file"):
        load_embedder(other)
    for content in (b"", b"text", path.read_bytes()[:-1], (10**12).to_bytes(8, "little") + b"{}"):
        other.write_bytes(content)
        with pytest.raises(InputError, match="not a readable safetensors file"):
            load_embedder(other)


# Reading


def test_reading_both_cues(path, priors, encoder):
    clip = Clip(blendshapes=faces(200), audio=sound(8.0), seconds=8.0, name="both")
    told = []
    reading = choose_embedder(path, whisper=encoder).read(clip, priors, on_progress=lambda *at: told.append(at))
    assert isinstance(reading.emotion, Emotion) and reading.emotion.name == "both" and reading.notes == ()
    assert list(reading.tracks) == ["face", "voice", "combined"] == list(reading.weights)
    for cue, track in reading.tracks.items():
        assert track.shape == (len(reading.times), 8) and np.allclose(track.sum(1), 1)
        assert reading.weights[cue].sum() == pytest.approx(1) and 0 <= reading.sureness[cue] <= 1
    assert (
        np.allclose(reading.times, [2.0, 2.96, 3.92, 4.88, 5.84, 6.0 + 0.4], atol=0.5)
        and (reading.emotion.deviation > 0).all()
    )
    assert told[-1] == (8.0, 8.0) and "combined" in reading.text()


def test_short_clip_is_what_the_network_says(path, priors, encoder):
    clip = Clip(blendshapes=faces(50), audio=sound(2.0))
    reading = load_embedder(path, encoder).read(clip, priors)
    model = make_model(priors)
    mean, log_variance = model(*(part[None] for part in whole(clip, encoder)))
    assert torch.allclose(reading.emotion.mean, mean[0], atol=1e-5)
    assert torch.allclose(reading.emotion.deviation, (0.5 * log_variance[0]).exp(), atol=1e-5)
    shares = posterior(mean, model.anchors, 2.0)[0].numpy()
    assert np.allclose(reading.weights["combined"], shares, atol=1e-5)


def test_one_cue_alone(path, priors, encoder):
    embedder = load_embedder(path, encoder)
    face = embedder.read(Clip(blendshapes=faces(1)), priors)
    assert list(face.tracks) == ["face", "combined"] and len(face.times) == 1
    assert np.array_equal(face.tracks["face"], face.tracks["combined"])
    silent = embedder.read(Clip(blendshapes=faces(50), audio=sound(2.0, level=0.0)), priors)
    assert list(silent.tracks) == ["face", "combined"] and "The sound is silent." in silent.notes
    unseen = embedder.read(Clip(blendshapes=faces(50, value=np.nan), audio=sound(2.0)), priors)
    assert list(unseen.tracks) == ["voice", "combined"] and "No face was seen." in unseen.notes
    for clip in (Clip(), Clip(audio=sound(1.0, level=0.0)), Clip(blendshapes=faces(9, value=np.nan))):
        with pytest.raises(InputError, match="Nothing in clip shows an emotion"):
            embedder.read(clip, priors)


def test_timeline_follows_the_clip(path, priors, tmp_path):
    rows = np.zeros((500, 52), np.float32)
    rows[250:, 44:46] = 1.0
    named = tmp_path / "of 3.04\u202fPM.safetensors"  # as macOS names files
    named.write_bytes(path.read_bytes())
    embedder = load_embedder(named)
    reading = embedder.read(Clip(blendshapes=array_stream(rows, 25.0)), priors, timeline=True)
    assert isinstance(reading.emotion, EmotionTimeline) and len(reading.emotion.keys) > 1
    assert "of 3.04 PM.safetensors" in reading.emotion.provenance
    assert set(key.time for key in reading.emotion.keys) <= set(reading.times.tolist())
    early, late = (reading.emotion.at(seconds).mean for seconds in (0, 20))
    alone = [embedder.read(Clip(blendshapes=array_stream(part, 25.0)), priors) for part in (rows[:100], rows[-100:])]
    assert torch.allclose(early, alone[0].emotion.mean, atol=1e-4)
    assert torch.allclose(late, alone[1].emotion.mean, atol=1e-2)  # fewer tokens are left at the end
    still = embedder.read(Clip(blendshapes=faces(500)), priors, timeline=True)
    assert still.emotion.at(0) == still.emotion.keys[0].emotion


def as_strong_as_the_face(model, name, monkeypatch):
    """Let a model read one emotion, as strong as the mean of the blendshapes: 1 is the prior, and 0 neutral."""
    prior = model.anchors[NAMES.index(name)]
    scale = (model.anchors - model.neutral).norm(dim=-1).mean() / 16
    model.residual.weight[:, 0] = (prior - model.neutral) / scale
    model.residual.bias.zero_()
    first = torch.eye(1, model.config.code)
    monkeypatch.setattr(model, "encode", lambda visual, *_: visual.mean() * first)


def test_a_timeline_keeps_how_strong_an_emotion_is(path, priors, monkeypatch):
    embedder = load_embedder(path)
    as_strong_as_the_face(embedder.model, "happy", monkeypatch)
    rows = np.repeat([1.0, 1.6, 1.0], 375)[:, None] * np.ones((1, 52), np.float32)  # 15 s each
    reading = embedder.read(Clip(blendshapes=array_stream(rows, 25.0)), priors, timeline=True)
    assert reading.tracks["combined"][:, NAMES.index("happy")].min() > 0.97, "the weights hardly tell it"
    way = priors["happy"].mean - priors["neutral"].mean
    for seconds, strength in ((2.0, 1.0), (10.0, 1.0), (20.0, 1.6), (25.0, 1.6), (40.0, 1.0)):
        mean = reading.emotion.at(seconds).mean - priors["neutral"].mean
        assert float(mean @ way / way.square().sum()) == pytest.approx(strength, abs=0.05)
    assert len(reading.emotion.keys) < len(reading.times) / 2


def test_a_timeline_keeps_little_of_each_window(path, priors):
    def peak(seconds):
        clip = Clip(blendshapes=faces(seconds * 25))
        tracemalloc.start()
        try:
            reading = embedder.read(clip, priors, timeline=True)
            return tracemalloc.get_traced_memory()[1], len(reading.times)
        finally:
            tracemalloc.stop()

    embedder = load_embedder(path)
    (short, few), (long, many) = peak(60), peak(260)
    assert many - few == pytest.approx(200 * RATE / HOP, abs=2)
    assert (long - short) / (many - few) < 3000, "two arrays of 256 float64 would be 4096 bytes more"


def test_tokens_and_models_go_to_the_device(path, priors, tiny_checkpoint, monkeypatch):
    """A device without values, "meta", shows where things are sent; what comes back is made up."""
    whisper = load_whisper_encoder(tiny_checkpoint / "whisper-tiny")
    embedder = choose_embedder(path, whisper=whisper, device="meta")
    assert {each.device.type for each in embedder.model.state_dict().values()} == {"meta"}
    assert embedder._encoder(Clip(audio=sound(1.0)), []).conv1.weight.device.type == "meta"
    seen, plain = [], load_embedder(path).model

    def encode(*tokens):
        seen.extend(each.device.type for each in tokens)
        return torch.zeros(1, SMALL.code)

    monkeypatch.setattr(embedder.model, "encode", encode)
    monkeypatch.setattr(embedder.model, "gaussian", lambda code: plain.gaussian(torch.zeros(code.shape)))
    embedder.read(Clip(blendshapes=faces(5)), priors)
    assert set(seen) == {"meta"}


def test_an_hour_takes_no_more_memory_than_its_steps(priors, encoder, monkeypatch, tmp_path):
    seconds, few = 3600, replace(SMALL, tokens=350)
    monkeypatch.setattr("dicetalk.embedder.reader.HOP", few.tokens)  # one window where there would be thirty
    save_embedder(tmp_path / "few.safetensors", make_model(priors, few), 2.0)

    def rows():
        for start in range(0, seconds, 10):
            yield start + np.arange(0, 10, 0.04), np.full((250, 52), 0.5, np.float32)

    def silence():
        for _ in range(0, seconds, 10):
            yield np.zeros(10 * SAMPLE_RATE, np.float32)

    def tensors():
        # By type, since isinstance would ask weak proxies, whose object may be gone.
        return sum(each.nbytes for each in gc.get_objects() if issubclass(type(each), torch.Tensor))

    held = []

    def tell(done, total):
        if not held or done > seconds - 100:
            held.append(tensors())

    embedder = load_embedder(tmp_path / "few.safetensors", encoder)
    clip = Clip(blendshapes=rows, audio=silence, seconds=float(seconds))
    tracemalloc.start()
    try:
        reading = embedder.read(clip, priors, on_progress=tell)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6, "the streams hold 250 MB"
    assert len(held) > 2 and max(held) < held[0] + 1e6
    assert len(reading.times) == pytest.approx(seconds / 28, rel=0.02) and "The sound is silent." in reading.notes
    short = embedder.read(Clip(blendshapes=faces(28 * 25)), priors)
    assert torch.allclose(reading.emotion.mean, short.emotion.mean, atol=1e-4)


def test_music_is_heard_as_a_voice(path, priors, encoder):
    clip = Clip(audio=clips.sound(clips.music(3.0)))
    reading = load_embedder(path, encoder).read(clip, priors)
    assert list(reading.tracks) == ["voice", "combined"] and reading.notes == ()
    assert np.array_equal(reading.tracks["voice"], reading.tracks["combined"])
    _, _, audio, mask = whole(clip, encoder)
    unseen = torch.zeros(1, len(mask), 52), torch.zeros(1, len(mask), dtype=torch.bool)
    mean, _ = make_model(priors)(*unseen, audio[None], mask[None])
    assert mask.all() and torch.allclose(reading.emotion.mean, mean[0], atol=1e-5)


def test_a_still_is_seen_in_every_window(path, priors, encoder):
    reading = load_embedder(path, encoder).read(Clip(blendshapes=faces(1), audio=sound(30.0)), priors)
    track = reading.tracks["face"]
    assert len(track) > 25 and reading.notes == () and np.allclose(track, track[0], atol=1e-3)


def test_cue_that_was_not_trained_with_is_not_read(path, priors, encoder, tmp_path):
    both = Clip(blendshapes=faces(50), audio=sound(2.0))
    for use, cue, other, alone in (
        ("visual", "face", "voice", Clip(blendshapes=faces(50))),
        ("audio", "voice", "face", Clip(audio=sound(2.0))),
    ):
        one = tmp_path / f"{use}.safetensors"
        save_embedder(one, make_model(priors), 2.0, whisper_digest(encoder), use=use)
        embedder = load_embedder(one, encoder)
        reading, expected = embedder.read(both, priors), embedder.read(alone, priors)
        assert embedder.use == use and list(reading.tracks) == [cue, "combined"] and expected.notes == ()
        assert reading.notes == (
            f"The {other} was not read: the embedder {use}.safetensors was trained on {cue}s alone.",
        )
        assert reading.emotion == expected.emotion
        assert torch.equal(expected.emotion.mean, load_embedder(path, encoder).read(alone, priors).emotion.mean)
        hidden = replace(both, **{"blendshapes" if use == "visual" else "audio": None})
        with pytest.raises(InputError, match=f"Nothing in clip shows an emotion.*The {other} was not read"):
            embedder.read(hidden, priors)


def test_other_whisper_and_other_priors(path, priors, encoder):
    embedder = load_embedder(path, encoder)
    file = read_embedder(path)
    embedder._digest = "0" * 16
    with pytest.raises(InputError, match="another Whisper encoder"):
        embedder.read(Clip(audio=sound(1.0)), priors)
    moved = {**priors, "sad": Emotion(priors["sad"].mean + 1)}
    reading = load_embedder(path).read(Clip(blendshapes=faces(5)), moved)
    assert "another prior of sad" in reading.notes[0] and file.model.config.emotions == NAMES


def test_whisper_that_is_missing(path, priors, monkeypatch, tmp_path):
    monkeypatch.setattr("dicetalk.checkpoints.finding.default_roots", lambda: [tmp_path])
    reading = load_embedder(path).read(Clip(blendshapes=faces(5), audio=sound(1.0)), priors)
    assert "The voice was not read" in reading.notes[0] and list(reading.tracks) == ["face", "combined"]
    with pytest.raises(InputError, match="No DICE-Talk checkpoint"):
        load_embedder(path).read(Clip(audio=sound(1.0)), priors)


def test_reading_can_be_cancelled(path, priors):
    class Cancelled(Exception):
        pass

    def cancel(done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        load_embedder(path).read(Clip(blendshapes=faces(5)), priors, on_progress=cancel)


def test_command_and_node_interface_take_the_file(path, tiny_checkpoint, tmp_path, monkeypatch, capsys, priors):
    from dicetalk import cli

    monkeypatch.setattr(cli, "COMMANDS", ("emotion",))
    landmarks = tmp_path / "face.npy"
    np.save(landmarks, np.full((10, 52), 0.5, np.float32))
    output = tmp_path / "read.safetensors"
    code = cli.main(
        ["emotion", "from-clip", "demo/speech.flac", "--embedder", str(path), "--checkpoint", str(tiny_checkpoint)]
        + ["--output", str(output)]
    )
    assert code == 0 and output.is_file(), capsys.readouterr().err
    out = capsys.readouterr().out
    assert "voice" in out and "another prior" in out  # the tiny checkpoint has its own priors


def test_config_is_frozen_and_blendshapes_are_52():
    assert len(BLENDSHAPES) == SMALL.visual_features
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.width = 3
