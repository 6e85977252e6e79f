"""The pipeline on the tiny checkpoint."""

import numpy as np
import pytest
import torch
from PIL import Image

from dicetalk.checkpoints.finding import resolve_checkpoint
from dicetalk.checkpoints.priors import load_priors
from dicetalk.emotion.parsing import parse_emotion
from dicetalk.emotion.timeline import EmotionTimeline
from dicetalk.errors import InputError
from dicetalk.media.portrait import prepare_portrait
from dicetalk.pipeline import DiceTalkPipeline

FRAMES = 3


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint):
    pipeline = DiceTalkPipeline.from_checkpoint(tiny_checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def priors(tiny_checkpoint):
    return load_priors(resolve_checkpoint(tiny_checkpoint).emotions)


@pytest.fixture(scope="module")
def given(priors):
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 255, (90, 120, 3), np.uint8))
    speech = np.random.RandomState(1).standard_normal(1280 * FRAMES).astype(np.float32) / 10
    return {
        "portrait": prepare_portrait(picture, (40, 20, 80, 70), short_side=64),
        "audio": speech,
        "emotion": priors["happy"],
        "num_inference_steps": 2,
    }


@pytest.fixture(scope="module")
def quick(given):
    """The same in half the time: windows without the frames around a short clip."""
    return given | {"clamp_windows": True}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_output_types_agree(pipeline, quick):
    latent, pt, array, pictures = (
        pipeline(**quick, generator=seeded(), output_type=kind).frames for kind in ("latent", "pt", "np", "pil")
    )
    assert latent.shape == (FRAMES, 4, 8, 8) and torch.isfinite(latent).all()
    assert pt.shape == (FRAMES, 3, 64, 64) and array.shape == (FRAMES, 64, 64, 3)
    assert np.allclose(pt.permute(0, 2, 3, 1).numpy(), array)
    assert array.min() >= 0 and array.max() <= 1
    assert len(pictures) == FRAMES and pictures[0].size == (64, 64)
    assert np.abs(np.asarray(pictures[0]) / 255 - array[0]).max() < 1 / 255


def test_generator_or_noise(pipeline, given):
    first = pipeline(**given, generator=seeded(5), output_type="latent").frames
    noise = torch.randn(FRAMES + 25, 4, 8, 8, generator=seeded(5))
    assert torch.equal(pipeline(**given, noise=noise, output_type="latent", return_dict=False)[0], first)
    assert not torch.equal(pipeline(**given, generator=seeded(6), output_type="latent").frames, first)
    with pytest.raises(InputError, match="noise has shape"):
        pipeline(**given, noise=noise[:FRAMES])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_frames_that_are_not_finite_are_refused(pipeline, quick, monkeypatch, value):
    from diffusers.models.autoencoders.vae import DecoderOutput

    latents = pipeline(**quick, generator=seeded(), output_type="latent").frames
    broken = torch.full((FRAMES, 3, 64, 64), value)
    monkeypatch.setattr(pipeline.vae, "decode", lambda latents, num_frames: DecoderOutput(broken))
    with pytest.raises(InputError, match="The VAE gave values that are not finite .*--dtype"):
        list(pipeline.decode(latents))


def test_callback_sees_and_may_change_the_latents(pipeline, given):
    seen = []

    def watch(pipe, step, timestep, inputs):
        assert pipe is pipeline
        seen.append((step, float(timestep), tuple(inputs["latents"].shape)))
        return {"latents": torch.zeros_like(inputs["latents"])} if step == 1 else {}

    latents = pipeline(**given, generator=seeded(), output_type="latent", callback_on_step_end=watch).frames
    assert [(step, shape) for step, _, shape in seen] == [(0, (FRAMES + 25, 4, 8, 8)), (1, (FRAMES + 25, 4, 8, 8))]
    assert seen[0][1] > seen[1][1]
    assert not latents.any()


def test_scales_and_emotion_change_the_result(pipeline, quick, priors):
    plain = pipeline(**quick, generator=seeded(), output_type="latent").frames
    timeline = parse_emotion("0s neutral; 0.1s happy step", priors)
    assert isinstance(timeline, EmotionTimeline)
    for change in ({"emotion": priors["sad"]}, {"emotion": timeline}, {"reference_scale": 1.0}, {"emotion_scale": 3.0}):
        changed = pipeline(**quick | change, generator=seeded(), output_type="latent").frames
        assert torch.isfinite(changed).all() and not torch.allclose(changed, plain, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(tiny_checkpoint, given, dtype):
    pipeline = DiceTalkPipeline.from_checkpoint(tiny_checkpoint, torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    little = {"num_inference_steps": 1, "reference_scale": 1.0, "emotion_scale": 1.0}
    frames = pipeline(**given | little, generator=seeded(), output_type="np").frames
    assert frames.dtype == np.float32 and np.isfinite(frames).all()


def test_bad_arguments_are_told(pipeline, given):
    for change, problem in (
        ({"output_type": "gif"}, "output_type is 'gif'"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"decode_chunk_size": 0}, "decode_chunk_size is 0"),
        ({"callback_on_step_end_tensor_inputs": ("noise",)}, "noise"),
        ({"audio": np.zeros(0, np.float32)}, "0.000 s"),
        ({"audio": np.float32(0)}, "mono audio"),
        ({"audio": np.zeros((2, 16000), np.float32)}, "mono audio"),
    ):
        with pytest.raises(InputError, match=problem):
            pipeline(**given | change)


class Begun(Exception):
    """The work began."""


@pytest.fixture
def three_hours(pipeline, given, monkeypatch):
    """Asks for three hours with that much memory free; the work itself is not done."""

    def ask(free, output_type, **change):
        def begin(*args):
            raise Begun

        monkeypatch.setattr("dicetalk.pipeline.free_memory", lambda device: free)
        monkeypatch.setattr(pipeline, "encode", begin)
        pipeline(**given | {"audio": np.zeros(3 * 3600 * 16000, np.float32)} | change, output_type=output_type)

    return ask


def test_a_timelines_tokens_are_counted(three_hours, pipeline, priors):
    def needed(emotion):
        with pytest.raises(InputError) as refused:
            three_hours(1e6, "latent", emotion=emotion)
        return float(str(refused.value).split("needs ")[1].split(" GB")[0])

    tokens = 135_000 * pipeline.audio_projection.tokens * pipeline.audio_projection.dim * 4 / 1e9
    timeline = parse_emotion("0s neutral; 1s happy", priors)
    assert needed(timeline) - needed(priors["happy"]) == pytest.approx(tokens, abs=0.11)


@pytest.mark.parametrize("output_type", ["latent", "np", "pil"])
def test_three_hours_are_refused_where_memory_does_not_suffice(three_hours, output_type):
    with pytest.raises(InputError) as refused:
        three_hours(1e9, output_type)
    assert "audio lasts 10800 s" in str(refused.value) and "1.0 GB are free" in str(refused.value)
    seconds = int(str(refused.value).split("(--length ")[1].split(")")[0])
    assert 10 < seconds < 10800


@pytest.mark.parametrize(("output_type", "free"), [("latent", 100e9), ("pil", 1e12), ("pil", None)])
def test_three_hours_are_let_through_where_it_does(three_hours, output_type, free):
    with pytest.raises(Begun):
        three_hours(free, output_type)


def test_pictures_that_are_kept_count(three_hours, pipeline):
    """64×64 pixels of 12 to 15 bytes: more than tokens and latents here."""
    tokens = 4 * pipeline.audio_projection.tokens * pipeline.audio_projection.dim
    free = 135_000 * (tokens + 30_000) / 0.9
    with pytest.raises(Begun):
        three_hours(free, "latent")
    with pytest.raises(InputError):
        three_hours(free, "np")


def test_a_half_precision_vae_encodes_in_float32(tiny_checkpoint, pipeline, given):
    half = DiceTalkPipeline.from_checkpoint(tiny_checkpoint, torch_dtype=torch.float16)
    picture, cpu = given["portrait"].image, torch.device("cpu")
    with torch.no_grad():
        latent, exact = half._encode_latent(picture, cpu), pipeline._encode_latent(picture, cpu)
    assert (latent - exact).abs().max() < 1e-4 * exact.abs().max()  # the tiny VAE's weights are in half precision
    assert {weight.dtype for weight in half.vae.parameters()} == {torch.float16}


@pytest.mark.parametrize("name, adapter", [("speech_strength", 0), ("emotion_strength", 1)])
def test_a_strength_multiplies_what_one_adapter_adds(pipeline, quick, name, adapter):
    """Values are linear in their weights: half the strength is half the weights."""

    def latents(**options):
        return pipeline(**quick, **options, generator=seeded(), output_type="latent").frames

    plain = latents()
    assert torch.equal(latents(speech_strength=1.0, emotion_strength=1.0), plain)
    half = latents(**{name: 0.5})
    weights = [weight for key, weight in pipeline.unet.named_parameters() if f"to_v_ip.{adapter}." in key]
    with torch.no_grad():
        for weight in weights:
            weight.mul_(0.5)
    try:
        expected = latents()
    finally:
        with torch.no_grad():
            for weight in weights:
                weight.mul_(2)
    moved = (half - plain).norm()
    assert moved > 0 and (half - expected).norm() < 0.01 * moved, "but for rounding"


@pytest.mark.parametrize("strength", [-0.1, 2.5, float("nan")])
def test_strengths_out_of_range_are_named(pipeline, given, strength):
    with pytest.raises(InputError, match="emotion_strength is .*: give 0 to 2"):
        pipeline(**given, emotion_strength=strength)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tokens_and_portrait_are_computed_in_float32_and_cast_alone(pipeline, tiny_checkpoint, given, dtype):
    half = DiceTalkPipeline.from_checkpoint(tiny_checkpoint, torch_dtype=dtype)
    assert half.unet.dtype == dtype and half.vae.dtype == torch.float16
    inputs = [given[name] for name in ("portrait", "audio", "emotion")]
    full, cast = pipeline.encode(*inputs), half.encode(*inputs)
    for name in ("audio_tokens", "uncond_audio_tokens", "emotion_tokens", "uncond_emotion_tokens"):
        assert torch.equal(getattr(cast, name), getattr(full, name).to(dtype)), name
    off = (cast.image_latent - full.image_latent).norm() / full.image_latent.norm()
    assert cast.image_latent.dtype == torch.float32 and off < 1e-6, "the file's weights are of float16"
    assert half.vae.dtype == torch.float16
