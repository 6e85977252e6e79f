"""What is fuzzed: the readers of emotion files. Each target takes bytes and passes, or raises what is a finding.

A reader may give an emotion or raise InputError in one line; anything else, and an emotion with a number that is not
finite, is a finding.
"""

import io
import json
import math
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import torch

from dicetalk.checkpoints.priors import load_prior
from dicetalk.emotion.files import emotion_from_content, load_emotion
from dicetalk.emotion.timeline import EmotionTimeline
from dicetalk.emotion.value import Emotion, TokenMix
from dicetalk.errors import InputError

_ROWS = {"mean": torch.zeros(3, 256), "deviation": torch.ones(3, 256)}
_folder = tempfile.TemporaryDirectory(prefix="dicetalk-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


def prior(data):
    """A file of a checkpoint's folder of emotions."""
    _read(load_prior, "emotion.npy", data)


def saved(data):
    """A saved emotion, as a file."""
    _read(load_emotion, "emotion.safetensors", data)


def description(data):
    """The text in a saved emotion's metadata, on tensors that are right."""
    _check(lambda: emotion_from_content({"emotion": data.decode("utf-8", "replace")}, _ROWS))


TARGETS = {"prior": prior, "saved": saved, "description": description}


def _read(reader, name, data):
    path = Path(_folder.name) / name
    path.write_bytes(data)
    _check(lambda: reader(path))


def _check(read):
    try:
        emotion = read()
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000, str(error)
        return
    assert isinstance(emotion, (Emotion, TokenMix, EmotionTimeline)), type(emotion)
    for each in _single(emotion):
        assert each.mean.shape == each.deviation.shape == (256,)
        assert all(map(math.isfinite, (*each.mean.tolist(), *each.deviation.tolist())))
    assert len(emotion.digest()) == 64


def _single(emotion):
    if isinstance(emotion, EmotionTimeline):
        return [one for key in emotion.keys for one in _single(key.emotion)]
    return [one for _, one in emotion.parts]


def seeds(name):
    """Good inputs of a target, to start from."""
    if name == "prior":
        return [*(_published(protocol) for protocol in (2, 3, 4)), _plain_npy()]
    labels = {"name": "grin", "provenance": "by hand"}
    single = {"kind": "emotion", **labels, "bank": {"mode": "top-k", "top_k": 5, "temperature": 0.7}}
    mix = {
        "kind": "token mix",
        **labels,
        "parts": [{"weight": 0.25, "emotion": single}, {"weight": 0.75, "emotion": single}],
    }
    keys = [{"time": 0, "easing": "linear", "emotion": mix}, {"time": 1.5, "easing": "smooth", "emotion": single}]
    records = [single, mix, {"kind": "timeline", **labels, "keys": keys}]
    if name == "description":
        return [json.dumps(record).encode() for record in records]
    return [_safetensors(record, rows) for record, rows in zip(records, (1, 2, 3))]


def _published(protocol):
    array = np.empty((), dtype=object)
    array[()] = {"mu": np.linspace(-1, 1, 256, dtype=np.float32)[None]}
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
    pickle.dump(array, stream, protocol=protocol)
    return stream.getvalue()


def _plain_npy():
    stream = io.BytesIO()
    np.save(stream, np.linspace(-1, 1, 256, dtype=np.float32))
    return stream.getvalue()


def _safetensors(record, rows):
    from safetensors.torch import save

    metadata = {"format": "dicetalk-emotion", "version": "1", "emotion": json.dumps(record)}
    return save({name: tensor[:rows].clone() for name, tensor in _ROWS.items()}, metadata)
