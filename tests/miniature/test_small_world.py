"""The whole method learns to show emotions: two minutes, a world of one drawn person, and the miniature's makers."""

import copy

import numpy as np
import pytest
import torch
from project import ROOT

from dicetalk.checkpoints.tiny import emotion_means
from dicetalk.drawn import Person, Take
from dicetalk.drawn.splits import people
from dicetalk.emotion.options import NAMES
from dicetalk.emotion.value import Emotion
from dicetalk.measure.drawn_clips import Asked, Sampling, Studio
from dicetalk.measure.reader import read_reader
from dicetalk.miniature import make
from dicetalk.miniature.features import encoded, write_clips

accelerate = pytest.importorskip("accelerate")

from dicetalk.pipeline import DiceTalkPipeline  # noqa: E402
from dicetalk.training.dataset import PreparedClips  # noqa: E402
from dicetalk.training.loop import train  # noqa: E402
from dicetalk.training.options import TrainingOptions  # noqa: E402
from dicetalk.training.parts import build_objective, new_parts, start_from_emotions  # noqa: E402

FRAMES = 1
SHOWN = ("angry", "happy", "sad", "surprised")
OPTIONS = TrainingOptions(
    trains="all",
    steps=220,
    batch=16,
    frames=FRAMES,
    rate=2e-3,
    warm_up=10,
    cool_down=80,
    bank="both",
    portraits="person",
    ema=0.95,
)


def test_losses_fall_and_the_emotion_is_read_better_than_chance(tmp_path):
    pipeline = DiceTalkPipeline.from_checkpoint(ROOT / "miniature")
    person = Person.of(people("train", 1)[0])
    chosen = [Take(person, name, None, sentence) for name in SHOWN for sentence in (0, 1)]
    takes = [
        {
            "frames": np.stack(list(take.frames(64))),
            "sound": take.sound,
            "blendshapes": take.blendshapes,
            "box": take.face_box(64),
        }
        for take in chosen
    ]
    features = encoded(takes, pipeline.audio_encoder, pipeline.image_encoder, tmp_path / "encoded.npz")
    write_clips(tmp_path / "clips", chosen, takes, features, pipeline.vae)
    config = copy.deepcopy(make.CONFIG)
    config["unet"] |= {"block_out_channels": (32, 64, 64, 64), "num_attention_heads": (1, 1, 1, 1)}
    config["pose_guider"]["conditioning_embedding_channels"] = 32
    config["emo_model"]["classifier_dims"] = (64, *config["emo_model"]["classifier_dims"][1:])
    priors = {name: torch.from_numpy(mean) for name, mean in emotion_means().items()}
    parts = new_parts(config)
    start_from_emotions(parts["emo_model"], priors)
    objective = build_objective(parts, OPTIONS)
    history = np.array(
        train(objective, PreparedClips(tmp_path / "clips", FRAMES), priors, accelerate.Accelerator(cpu=True))
    )[:, 1:]
    assert np.all(history[-40:].mean(0) < 0.8 * history[:40].mean(0)), history

    pipeline.register_modules(
        unet=objective.unet,
        pose_guider=objective.pose_guider,
        audio_projection=objective.audio_linear,
        emotion_model=objective.emo_model,
    )
    studio = Studio(pipeline, read_reader(), frames=3)
    sampling = Sampling(steps=8, reference_scale=1, emotion_scale=3, window=FRAMES)
    read = []
    for take in chosen:
        result = studio.make(Asked(person, take, Emotion(priors[take.emotion])), sampling)
        shares = [result.clip["emotion"][NAMES.index(name)] for name in SHOWN]
        read.append(SHOWN[int(np.argmax(shares))])
    right = sum(name == take.emotion for name, take in zip(read, chosen))
    assert right >= 6, read  # of 8; by chance it would be two
