"""A tiny checkpoint that follows emotions, with a classifier that was taught to read them in an order of its own."""

import random
import shutil
from dataclasses import replace

import numpy as np
import torch
from project import DEMO

from dicetalk.checkpoints.finding import resolve_checkpoint
from dicetalk.checkpoints.loading import load_part
from dicetalk.checkpoints.priors import load_priors
from dicetalk.emotion.options import CLASSES
from dicetalk.media.portrait import load_portrait
from dicetalk.model.emotion import EmotionClassifier
from dicetalk.model.emotion_tokens import value_tokens
from dicetalk.pipeline import DiceTalkPipeline
from dicetalk.sampling.meter import middle_features

ORDER = tuple(random.Random(3).sample(CLASSES, len(CLASSES)))  # of the classifier's outputs
_FRAMES = 3
_STRENGTH = {1: 0.6, 2: 1.0, 3: 1.4}
_LOUD = ".transformer_blocks.", ".to_v_ip.1."  # in the names of the weights that make an emotion heard, in each frame
_GAIN = 2000  # of them; the tiny checkpoint's emotions hardly differ
_QUIET = 0.02  # of what the network draws, so that its frames stay near the noise that they start from


def write_following_checkpoint(tiny, folder, seed=0):
    """Write it to a new folder; the tiny checkpoint is left as it is."""
    shutil.copytree(tiny, folder)
    files = {part: folder / "DICE-Talk" / f"{part}.pth" for part in ("unet", "emo_model")}
    unet = load_part("unet", files["unet"], torch.float32).state_dict()
    # Copies, since the weights are mapped to the files that are written over.
    torch.save({name: each * _gain(name) for name, each in unet.items()}, files["unet"])
    pipeline = DiceTalkPipeline.from_checkpoint(resolve_checkpoint(folder))
    classifier = _taught(*_features(pipeline, load_priors(folder / "emotions")), seed)
    tensors = {name: each.clone() for name, each in pipeline.emotion_model.state_dict().items()}
    tensors |= {f"classifier.{name}": each for name, each in classifier.state_dict().items()}
    torch.save(tensors, files["emo_model"])
    return folder


def _gain(name):
    return _GAIN if all(part in name for part in _LOUD) else _QUIET if name.startswith("conv_out.") else 1


def _features(pipeline, priors):
    """(N, channels) pooled middle features of every class, and the (N,) outputs for them: of the portrait at several
    noise levels, and of frames as the network draws them."""
    portrait = load_portrait(DEMO / "portrait.jpg", short_side=64)
    conditions = pipeline.encode(portrait, np.zeros(1280 * _FRAMES, np.float32), priors["neutral"])
    told = [priors[name].with_intensity(priors["neutral"], _STRENGTH[level]) for name, level in CLASSES]
    tokens, still = value_tokens(pipeline.emotion_model, told), conditions.image_latent * 0.18215
    features, outputs = [], []
    for draw, (sigma, drawn) in enumerate([(0.1, 0), (0.3, 0), (0.7, 0), (0.1, 1), (0.3, 1), (0.1, 1), (0.3, 1)]):
        random = torch.Generator().manual_seed(90 + draw)
        noise, frames = torch.randn(2, _FRAMES, *still.shape[1:], generator=random)
        noisy = (frames if drawn else still) + sigma * noise
        for each, row in zip(CLASSES, tokens, strict=True):
            one = replace(conditions, emotion_tokens=row[None])
            with torch.no_grad():
                middle = middle_features(pipeline.unet, one, noisy, sigma, list(range(_FRAMES)))
            features.append(middle.mean((-2, -1)))
            outputs += [ORDER.index(each)] * _FRAMES
    return torch.cat(features), torch.tensor(outputs)


def _taught(features, outputs, seed):
    mean, deviation = features.mean(0), features.std(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = EmotionClassifier(features.shape[1], 64, 64, len(CLASSES))
    optimizer = torch.optim.Adam(classifier.parameters(), lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        scores = classifier(((features - mean) / deviation)[..., None, None])
        torch.nn.functional.cross_entropy(scores, outputs).backward()
        optimizer.step()
    with torch.no_grad():  # the features' scale goes into the first layer
        classifier.fc1.weight /= deviation
        classifier.fc1.bias -= classifier.fc1.weight @ mean
    return classifier
