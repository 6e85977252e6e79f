"""Small ones of the two encoders that the method takes ready-made: Whisper's, and CLIP's vision tower.

The first learns what the lips do while it hears a sound, the second whose picture it sees.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..checkpoints.tiny import small_whisper_config
from ..media.pixels import clip_pixels
from ..model.audio import CHUNK_POSITIONS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ..reading.clip import BLENDSHAPES
from .small_training import SmallTraining

AUDIO_WIDTH = 32
IMAGE_WIDTH = 64
IMAGE_PIXELS = 224
TOKEN_WIDTH = 64  # of all that the UNet attends to
LIPS = "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRollLower"
_COLUMNS = [BLENDSHAPES.index(name) for name in LIPS]
_CHUNK = 30 * SAMPLE_RATE // SAMPLES_PER_FRAME  # frames that Whisper hears at once
_PAUSE = 5  # frames of silence between takes
_TEMPERATURE = 0.1


def audio_config():
    """transformers' WhisperConfig."""
    return small_whisper_config(AUDIO_WIDTH, 2 * AUDIO_WIDTH)


def train_audio_encoder(takes, steps, rate=2e-3, seed=0, state=None, on_step=None):
    """Train transformers' `WhisperEncoder` to follow the lips in the sound.

    Args:
        takes: a list of name → array with sound (samples,), 16 kHz, and blendshapes (frames, 52).
        steps: of the optimizer, each with 30 s of takes.
        rate: AdamW's.
        seed: of what is random.
        state: file to keep the state in and to continue from; None keeps none.
        on_step: called as ``on_step(done, total, loss)``.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        InputError: the state cannot be read or written.
        NotFinite: the loss is no finite number.
    """
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, lips = WhisperEncoder(audio_config()), torch.nn.Linear(AUDIO_WIDTH, len(LIPS))
    both = torch.nn.ModuleList([encoder, lips])
    mel = WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins)
    training = SmallTraining(both, rate, 0.98, state, on_step)
    for step in training.steps(steps):
        sound, wanted, counts = _chunk(takes, np.random.default_rng([seed, step]))
        features = mel(sound, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        states = encoder(features).last_hidden_state[0]
        seen = lips(states.unflatten(0, (_CHUNK, CHUNK_POSITIONS // _CHUNK)).mean(1))
        error = (seen - torch.from_numpy(wanted)).square().mean(1)
        loss = (error * torch.from_numpy(counts)).sum() / counts.sum()
        training.step(loss, step + 1, steps)
    return encoder


def _chunk(takes, random):
    """30 s of takes with pauses: (samples,) sound, (frames, lips) wanted, (frames,) 1 where a take is."""
    sound = np.zeros(_CHUNK * SAMPLES_PER_FRAME, np.float32)
    wanted, counts = np.zeros((_CHUNK, len(LIPS)), np.float32), np.zeros(_CHUNK, np.float32)
    place = int(random.integers(_PAUSE))
    while place < _CHUNK - 2 * _PAUSE:
        take = takes[int(random.integers(len(takes)))]
        frames = min(len(take["blendshapes"]), _CHUNK - place)
        part = take["sound"][: frames * SAMPLES_PER_FRAME]
        sound[place * SAMPLES_PER_FRAME :][: len(part)] = part * random.uniform(0.5, 1)
        wanted[place : place + frames] = take["blendshapes"][:frames, _COLUMNS]
        counts[place : place + frames] = 1
        place += frames + int(random.integers(_PAUSE))
        if random.random() < 0.3:  # a single take is heard too
            break
    return sound, wanted, counts


def image_config():
    """transformers' CLIPVisionConfig."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=IMAGE_WIDTH,
        intermediate_size=2 * IMAGE_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_PIXELS,
        patch_size=32,
        projection_dim=TOKEN_WIDTH,
    )


def train_image_encoder(takes, persons, steps, batch=32, rate=1e-3, seed=0, state=None, on_step=None):
    """Train transformers' `CLIPVisionModelWithProjection` to distinguish people, whatever their expression.

    Two pictures of each of a batch's people are to be more alike than those of different people (InfoNCE, van den Oord
    et al. 2018, equation 4).

    Args:
        takes: a list of name → array with frames (n, size, size, 3) uint8.
        persons: a number for each take, equal for those of one person.
        steps, batch, rate, seed, state, on_step: of the training; see `train_audio_encoder`. The batch counts people.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        as for `train_audio_encoder`.
    """
    from transformers import CLIPVisionModelWithProjection

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = CLIPVisionModelWithProjection(image_config())
    of_person = {}
    for number, person in enumerate(persons):
        of_person.setdefault(person, []).append(number)
    names = sorted(of_person)
    training = SmallTraining(encoder, rate, 0.98, state, on_step)
    for step in training.steps(steps):
        random = np.random.default_rng([seed, step])
        chosen = [names[place] for place in random.permutation(len(names))[:batch]]
        pictures = [
            _any_picture(takes[int(random.choice(of_person[name]))]["frames"], random)
            for _ in range(2)
            for name in chosen
        ]
        embeds = F.normalize(encoder(torch.cat(pictures)).image_embeds, dim=1)
        likeness = embeds[: len(chosen)] @ embeds[len(chosen) :].T / _TEMPERATURE
        own = torch.arange(len(chosen))
        loss = (F.cross_entropy(likeness, own) + F.cross_entropy(likeness.T, own)) / 2
        training.step(loss, step + 1, steps)
    return encoder


def _any_picture(frames, random):
    return clip_pixels(Image.fromarray(frames[int(random.integers(len(frames)))]), IMAGE_PIXELS)
