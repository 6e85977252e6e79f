"""The pipeline on the tiny checkpoint."""

import numpy as np
import pytest
import torch
from PIL import Image

from dicetalk.checkpoints import resolve_checkpoint
from dicetalk.emotion import EmotionTimeline, parse_emotion
from dicetalk.errors import InputError
from dicetalk.pipeline import DiceTalkPipeline
from dicetalk.portrait import prepare_portrait
from dicetalk.priors import load_priors

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


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_output_types_agree(pipeline, given):
    latent, pt, array, pictures = (
        pipeline(**given, generator=seeded(), output_type=kind).frames for kind in ("latent", "pt", "np", "pil")
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


def test_scales_and_emotion_change_the_result(pipeline, given, priors):
    plain = pipeline(**given, generator=seeded(), output_type="latent").frames
    timeline = parse_emotion("0s neutral; 0.1s happy step", priors)
    assert isinstance(timeline, EmotionTimeline)
    for change in ({"emotion": priors["sad"]}, {"emotion": timeline}, {"reference_scale": 1.0}, {"emotion_scale": 3.0}):
        changed = pipeline(**given | change, generator=seeded(), output_type="latent").frames
        assert torch.isfinite(changed).all() and not torch.allclose(changed, plain, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(tiny_checkpoint, given, dtype):
    pipeline = DiceTalkPipeline.from_checkpoint(tiny_checkpoint, torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    quick = {"num_inference_steps": 1, "reference_scale": 1.0, "emotion_scale": 1.0}
    frames = pipeline(**given | quick, generator=seeded(), output_type="np").frames
    assert frames.dtype == np.float32 and np.isfinite(frames).all()


def test_bad_arguments_are_told(pipeline, given):
    for change, problem in (
        ({"output_type": "gif"}, "output_type is 'gif'"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"decode_chunk_size": 0}, "decode_chunk_size is 0"),
        ({"callback_on_step_end_tensor_inputs": ("noise",)}, "noise"),
        ({"audio": np.zeros(100, np.float32)}, "0.006 s"),
    ):
        with pytest.raises(InputError, match=problem):
            pipeline(**given | change)
