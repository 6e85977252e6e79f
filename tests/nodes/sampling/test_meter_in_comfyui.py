"""The meter in ComfyUI reads what the library reads, and changes nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import FRAMES, TOKENS, UNET, WIDTH, SmallModel

ASKED = np.full((FRAMES, 8), 1 / 8)


@pytest.fixture(scope="module")
def small(pack, comfy_nodes):
    return SmallModel(pack)


@pytest.fixture
def meter(small):
    classes = small.module("dicetalk.checkpoints.classes")
    random = torch.Generator().manual_seed(1)
    classifier = small.module("dicetalk.model.emotion").EmotionClassifier(UNET["block_out_channels"][-1], 16, 16, 22)
    for weight in classifier.parameters():  # so small that no share is all: readings that differ have to look different
        weight.data = torch.randn(weight.shape, generator=random) / weight.shape[-1] ** 0.5
    return small.module("dicetalk.sampling.meter").Meter(classifier, classes.KNOWN_FROM_TRAINING)


def metered(small, meter, *arguments, **options):
    return small.guider(*arguments, meter=meter, asked=ASKED, **options)


def library_reads(small, meter, conditions, latents):
    """The shares that the library's UNet, with the same weights, gives for finished latents (N, 4, h, w)."""
    reading = small.module("dicetalk.sampling.meter")
    unet = small.module("dicetalk.model.unet").DiceTalkUNet(**UNET)
    unet.load_state_dict(small.patcher.model.diffusion_model.state_dict())
    with torch.no_grad():
        return meter.read_clip(
            conditions, latents * 0.18215, lambda *window: reading.middle_features(unet, conditions, *window)
        )


@pytest.mark.parametrize("scales", [(3.0, 6.0), (3.0, 0.0)])  # with the conditional branch, and without it
def test_the_reading_is_that_of_the_library_and_the_frames_are_the_same(small, meter, scales):
    plain = small.sample(small.guider(scales=scales))[0]
    guider = metered(small, meter, scales=scales)
    assert torch.equal(small.sample(guider)[0], plain)
    found = meter.shares
    assert found.shape == (FRAMES, 8) and np.allclose(found.sum(1), 1)
    np.testing.assert_allclose(found, library_reads(small, meter, guider.conditions, plain), atol=1e-5)
    assert np.ptp(found, axis=0).max() > 1e-3  # frames differ, so that their order matters
    backwards = library_reads(small, meter, guider.conditions, plain.flip(0))
    assert np.abs(found - backwards).max() > 1e-3  # and so does the picture


def test_what_is_read_is_said_and_drawn_beside_the_preview(small, meter, monkeypatch):
    import comfy.cli_args
    import comfy.utils
    import latent_preview

    said, shown = [], []
    monkeypatch.setattr(small.module("nodes.sampling.guider"), "say", lambda text, **_: said.append(text))
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *given, **_: shown.append(given))
    for method in (latent_preview.LatentPreviewMethod.NoPreviews, latent_preview.LatentPreviewMethod.Latent2RGB):
        monkeypatch.setattr(comfy.cli_args.args, "preview_method", method)
        small.sample(metered(small, meter))
    steps = [text for text in said if text.startswith("step ")]
    assert len(steps) > 6 and all("; reads " in text and text.endswith("%") for text in steps)
    assert said[-1].startswith("the network reads ") and said[-1].endswith("as asked")

    charts = [(done, total, image) for done, total, (_, image, _) in (each for each in shown if each[2])]
    charts = [each for each in charts if each[2].width > 900]
    assert [each[:2] for each in charts] == 2 * [(1, 3), (2, 3), (3, 3), (3, 3)]  # the last is of the finished clip
    for alone, beside in zip(charts[:4], charts[4:]):
        alone, beside = alone[2], beside[2]
        assert beside.height == alone.height and beside.width == alone.width + alone.height  # latents are square
    assert charts[3][2].tobytes() != charts[2][2].tobytes()
    assert np.ptp(np.asarray(alone)[:, 200:900].reshape(-1, 3), axis=0).min() > 100


def test_another_packs_previewer_is_left_to_itself(small, meter, monkeypatch):
    import comfy.utils
    import latent_preview

    shown = []
    other = SimpleNamespace(
        decode_latent_to_preview=lambda x0: torch.zeros(len(x0), 8, 8, 3),
        decode_latent_to_preview_image=lambda kind, x0: None,
    )
    monkeypatch.setattr(latent_preview, "get_previewer", lambda *_: other)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *given, **_: shown.append(given[2]))
    small.sample(metered(small, meter))
    assert sum(isinstance(each and each[1], Image.Image) for each in shown) == 4


def test_caches_do_not_answer_for_the_last_reading(small, meter):
    from comfy_extras.nodes_easycache import EasyCacheNode

    (patcher,) = EasyCacheNode.execute(small.patcher, 1e6, 0.0, 1.0, False).result
    guider = metered(small, meter, patcher)
    sampled = small.sample(guider, steps=6)[0]
    cached = meter.shares
    np.testing.assert_allclose(cached, library_reads(small, meter, guider.conditions, sampled), atol=1e-5)


def test_steps_that_leave_out_the_middle_keep_the_reading_before(small, meter, monkeypatch):
    savings = small.module("dicetalk.sampling.speed").Savings(guidance_reuse=2, deep_cache=3, clamp_windows=True)
    read = []
    watch = meter.watch
    monkeypatch.setattr(meter, "watch", lambda features, frames: read.append(frames) or watch(features, frames))
    plain = small.sample(small.guider(savings=savings), steps=6)[0]
    guider = metered(small, meter, savings=savings)
    assert torch.equal(small.sample(guider, steps=6)[0], plain)
    assert 0 < len(read) < 6 and all(sorted(frames) == list(range(FRAMES)) for frames in read)
    found = meter.shares
    np.testing.assert_allclose(found, library_reads(small, meter, guider.conditions, plain), atol=1e-5)


def test_the_sampler_shows_the_chart_of_the_finished_clip(small, meter, monkeypatch):
    node = small.module("nodes.sampling.sampler")
    guider, shown = metered(small, meter), []
    monkeypatch.setattr(node, "make_guider", lambda **_: (guider, small.start(guider)))

    def all_shown(pictures, cls):
        shown.extend(pictures)
        return {"images": []} if pictures else None

    monkeypatch.setattr(node, "all_shown", all_shown)
    with torch.inference_mode():
        given = {"seed": [0], "sampler_name": ["euler"], "scheduler": ["karras"], "model": [small.patcher]}  # as lists
        out = node.DiceTalkSampler.execute(**given, steps=[3], meter=[True])
        assert out.ui == {"images": []} and shown[0].tobytes() == guider.chart().tobytes()
        assert node.DiceTalkSampler.execute(**given, steps=[1]).ui is None
    assert out.result[0][0]["samples"].shape == (FRAMES, 4, 4, 4) and len(shown) == 1


@pytest.mark.parametrize("count", [0, 3])  # of all, and of the first half, which leaves noise
def test_what_is_not_finished_is_not_read(small, meter, count):
    guider = metered(small, meter)
    small.sample(guider, sigmas=small.sigmas(guider, steps=6)[:count])
    assert meter.shares is None and (meter.text(FRAMES) != "") is (count > 0)


@pytest.mark.parametrize(
    ("left_out", "words"), [("", "emotion classes --checkpoint"), ("neutral", "lack neutral.*switch off meter")]
)
def test_a_checkpoint_that_cannot_be_read_says_what_to_do(small, tiny_checkpoint, left_out, words):
    finding, priors = (small.module(f"dicetalk.checkpoints.{name}") for name in ("finding", "priors"))
    checkpoint = finding.resolve_checkpoint(tiny_checkpoint)
    known = priors.load_priors(checkpoint.folder("emotions"))
    known.pop(left_out, None)
    inputs = dict.fromkeys(("overlap", "shift", "motion_bucket", "expression_bucket"), 0)
    with pytest.raises(ValueError, match=words):
        small.module("nodes.sampling.sampler").make_guider(
            model=small.patcher,
            dicetalk=SimpleNamespace(checkpoint=checkpoint, priors=known),
            portrait=SimpleNamespace(clip_embeds=torch.zeros(1, WIDTH)),
            audio_features=SimpleNamespace(tokens=torch.zeros(3, TOKENS, WIDTH)),
            emotion=known["happy"],
            reference_scale=3.0,
            emotion_scale=6.0,
            meter=True,
            **inputs,
        )
