"""DICE-Talk Emotion Wheel in a real ComfyUI server."""

import numpy as np
import pytest
from comfy_server import PromptError
from PIL import Image

from dicetalk.checkpoints.priors import load_priors
from dicetalk.emotion.files import load_emotion
from dicetalk.emotion.parsing import parse_emotion
from dicetalk.emotion.picture import emotion_picture

MOODS = ("happy", "surprised", "fear", "sad", "angry", "disgusted", "contempt")


def graph(weights, intensity, name):
    parts = {"checkpoint": "tiny", "weight_dtype": "default"}
    wheel = {"dicetalk": ["1", 1], "intensity": intensity, **dict.fromkeys(MOODS, 0.0), **weights}
    save = {"emotion": ["2", 0], "name": name, "overwrite": True}
    return {
        "1": {"class_type": "DiceTalkLoader", "inputs": parts},
        "2": {"class_type": "DiceTalkEmotionWheel", "inputs": wheel},
        "3": {"class_type": "DiceTalkSaveEmotion", "inputs": save},
    }


@pytest.mark.parametrize(
    "weights, intensity, text",
    [
        ({"happy": 0.7, "surprised": 0.3}, 1.2, "(happy 0.7 + surprised 0.3):1.2"),
        ({"sad": 0.4, "angry": 0.2, "contempt": 0.2}, 1.0, "(sad 0.4 + angry 0.2 + contempt 0.2)"),
        ({"fear": 0.3}, 0.5, "fear:0.5"),
        ({"happy": 0.7, "surprised": 0.3}, 0.0, "neutral"),
        ({}, 1.5, "neutral"),
    ],
)
def test_it_is_the_mix_that_the_text_form_says(server, tiny_checkpoint, weights, intensity, text):
    outputs = server.run(graph(weights, intensity, "wheel"))
    path = server.base / "models" / "dicetalk_emotions" / "wheel.safetensors"
    saved = load_emotion(path)
    path.unlink()
    priors = load_priors(tiny_checkpoint / "emotions")
    assert saved == parse_emotion(text, priors)
    shown = np.asarray(Image.open(server.saved_file({"2": outputs["2"]})).convert("RGB"))
    assert np.array_equal(shown[39:], np.asarray(emotion_picture(saved, priors, text))[39:]), "below its title"


def test_a_weight_out_of_range_is_refused(server):
    with pytest.raises(PromptError, match="happy"):
        server.run(graph({"happy": -0.5}, 1.0, "wheel"))
