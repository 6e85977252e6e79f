"""The two towers that the method takes ready-made: an ear (Whisper's encoder) and an eye (CLIP's vision tower), small.

The ear learns what the lips do while it hears a sound; the eye learns whose picture it sees.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..media.pixels import clip_pixels
from ..model.audio import CHUNK_POSITIONS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ..reading.clip import BLENDSHAPES
from .state import Kept

EAR_WIDTH = 32
EYE_WIDTH = 64
EYE_PIXELS = 224
TOKEN_WIDTH = 64  # of all that the UNet attends to
LIPS = "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRollLower"
_COLUMNS = [BLENDSHAPES.index(name) for name in LIPS]
_CHUNK = 30 * SAMPLE_RATE // SAMPLES_PER_FRAME  # frames that the ear hears at once
_PAUSE = 5  # frames of silence between takes
_TEMPERATURE = 0.1


def ear_config():
    """transformers' WhisperConfig of the ear."""
    from transformers import WhisperConfig

    return WhisperConfig(
        vocab_size=8,
        d_model=EAR_WIDTH,
        encoder_layers=4,
        encoder_attention_heads=2,
        encoder_ffn_dim=2 * EAR_WIDTH,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=EAR_WIDTH,
        max_target_positions=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
    )


def train_ear(takes, steps, rate=2e-3, seed=0, state=None, on_step=None):
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
    """
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, lips = WhisperEncoder(ear_config()), torch.nn.Linear(EAR_WIDTH, len(LIPS))
    both = torch.nn.ModuleList([encoder, lips])
    optimizer = torch.optim.AdamW([each for each in both.parameters() if each.requires_grad], lr=rate)
    mel, kept = WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins), Kept(both, optimizer, state, 0.98)
    for step in range(kept.load(), steps):
        sound, wanted, counts = _chunk(takes, np.random.default_rng([seed, step]))
        features = mel(sound, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        states = encoder(features).last_hidden_state[0]
        seen = lips(states.unflatten(0, (_CHUNK, CHUNK_POSITIONS // _CHUNK)).mean(1))
        error = (seen - torch.from_numpy(wanted)).square().mean(1)
        loss = (error * torch.from_numpy(counts)).sum() / counts.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        kept.step(step + 1, steps)
        if on_step is not None:
            on_step(step + 1, steps, float(loss.detach()))
    kept.finish()
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


def eye_config():
    """transformers' CLIPVisionConfig of the eye."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=EYE_WIDTH,
        intermediate_size=2 * EYE_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=EYE_PIXELS,
        patch_size=32,
        projection_dim=TOKEN_WIDTH,
    )


def train_eye(takes, persons, steps, batch=32, rate=1e-3, seed=0, state=None, on_step=None):
    """Train transformers' `CLIPVisionModelWithProjection` to distinguish people, whatever their expression.

    Two pictures of each of a batch's people are to be more alike than those of different people (InfoNCE, van den Oord
    et al. 2018, equation 4).

    Args:
        takes: a list of name → array with frames (n, size, size, 3) uint8.
        persons: a number for each take, equal for those of one person.
        steps, batch, rate, seed, state, on_step: of the training; see `train_ear`. The batch counts people.

    Returns:
        The tower, in evaluation mode.
    """
    from transformers import CLIPVisionModelWithProjection

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        eye = CLIPVisionModelWithProjection(eye_config())
    optimizer = torch.optim.AdamW(eye.parameters(), lr=rate)
    kept, of_person = Kept(eye, optimizer, state, 0.98), {}
    for number, person in enumerate(persons):
        of_person.setdefault(person, []).append(number)
    names = sorted(of_person)
    for step in range(kept.load(), steps):
        random = np.random.default_rng([seed, step])
        chosen = [names[place] for place in random.permutation(len(names))[:batch]]
        pictures = [
            _any_picture(takes[int(random.choice(of_person[name]))]["frames"], random)
            for _ in range(2)
            for name in chosen
        ]
        embeds = F.normalize(eye(torch.cat(pictures)).image_embeds, dim=1)
        likeness = embeds[: len(chosen)] @ embeds[len(chosen) :].T / _TEMPERATURE
        own = torch.arange(len(chosen))
        loss = (F.cross_entropy(likeness, own) + F.cross_entropy(likeness.T, own)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        kept.step(step + 1, steps)
        if on_step is not None:
            on_step(step + 1, steps, float(loss.detach()))
    kept.finish()
    return eye


def _any_picture(frames, random):
    return clip_pixels(Image.fromarray(frames[int(random.integers(len(frames)))]), EYE_PIXELS)
