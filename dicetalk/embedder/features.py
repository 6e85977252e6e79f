"""From a clip's streams to the embedder's tokens, 12.5 a second, piece by piece.

A visual token is the mean of the blendshapes that were seen in its 80 ms; a still, whose pictures fill one token alone,
holds for as long as there is sound. An audio token is the mean of Whisper's hidden states (of its four layers, over its
80 ms). Clips of any length take the memory of one piece.
"""

import hashlib
from itertools import zip_longest

import numpy as np
import torch

from ..model.audio import SAMPLES_PER_FRAME, audio_features, num_frames
from ..reading.clip import BLENDSHAPES, check_seconds
from .model import RATE

PIECE = 350  # tokens: 28 s, which Whisper hears at once
SILENCE = 1e-3  # root mean square of full scale (-60 dB) below which 80 ms count as silent
_OWN_POSITIONS = slice(4, 8)  # of the ten that a frame's window of Whisper states spans


def pieces(clip, encoder, on_progress=None):
    """Yields (visual, visual_mask, audio, audio_mask) of a clip, `PIECE` tokens at a time, the last one shorter.

    Args:
        clip: `dicetalk.reading.clip.Clip`; its blendshapes and sound are used.
        encoder: Whisper's encoder; None passes the sound over.
        on_progress: called with the seconds that are done.

    Yields:
        (tokens, 52) and (tokens, width) float32, each with its (tokens,) bool mask; all of one length.
    """
    visual = _visual(clip.blendshapes()) if clip.blendshapes is not None else iter(())
    heard = clip.audio is not None and encoder is not None
    audio = _audio(clip.audio(), encoder) if heard else iter(())
    width = encoder.config.d_model if encoder is not None else 0
    nothing_seen = np.zeros((0, len(BLENDSHAPES)), np.float32), np.zeros(0, bool)
    nothing_heard = np.zeros((0, width), np.float32), np.zeros(0, bool)
    done, still = 0, None
    for seen, sound in zip_longest(visual, audio):
        seen, sound = nothing_seen if seen is None else seen, nothing_heard if sound is None else sound
        if not done and len(seen[0]) == 1:
            still = seen
        if still is not None:
            seen = tuple(np.repeat(part, max(1, len(sound[0])), axis=0) for part in still)
        count = max(len(seen[0]), len(sound[0]))
        if count:
            yield *_padded(*seen, count), *_padded(*sound, count)
        done += count
        if on_progress is not None:
            on_progress(done / RATE)


def whole(clip, encoder, on_progress=None):
    """All of a clip's pieces in one: for clips short enough to be held. See `pieces`."""
    parts = list(pieces(clip, encoder, on_progress))
    if not parts:
        width = encoder.config.d_model if encoder is not None else 0
        return tuple(torch.zeros(shape) for shape in ((0, len(BLENDSHAPES)), (0,), (0, width), (0,)))
    return tuple(torch.from_numpy(np.concatenate(part)) for part in zip(*parts))


def whisper_digest(encoder):
    """Identifies a Whisper model, whatever file it came in: 16 hexadecimal digits of a SHA-256."""
    weight = encoder.conv1.weight.detach().to("cpu", torch.float32).contiguous()
    return hashlib.sha256(weight.numpy().tobytes()).hexdigest()[:16]


def _padded(values, mask, count):
    missing = count - len(values)
    return np.pad(values, ((0, missing), (0, 0))), np.pad(mask, (0, missing))


def _visual(stream):
    """(tokens, 52) and mask, piece by piece.

    A token in which there was no frame is as the one before, which a low frame rate needs.
    """
    sums, counts, sampled = _empty_piece()
    first, end = 0, 0
    last = np.zeros(len(BLENDSHAPES), np.float32), False
    for times, rows in stream:
        check_seconds(times)
        indices = np.floor(np.asarray(times) * RATE + 1e-6).astype(int)
        while len(indices):
            here = indices < first + PIECE
            known = here & ~np.isnan(rows[:, 0])
            np.add.at(sums, indices[known] - first, rows[known])
            np.add.at(counts, indices[known] - first, 1)
            sampled[indices[here] - first] = True
            end = max(end, int(indices[here].max(initial=-1)) + 1)
            indices, rows = indices[~here], rows[~here]
            if len(indices):
                last, piece = _held(sums, counts, sampled, last)
                yield piece
                first += PIECE
                sums, counts, sampled = _empty_piece()
    if end > first:
        yield tuple(part[: end - first] for part in _held(sums, counts, sampled, last)[1])


def _empty_piece():
    return np.zeros((PIECE, len(BLENDSHAPES)), np.float32), np.zeros(PIECE, int), np.zeros(PIECE, bool)


def _held(sums, counts, sampled, last):
    values = sums / np.maximum(counts, 1).astype(np.float32)[:, None]
    values, mask = np.concatenate([last[0][None], values]), np.concatenate([[last[1]], counts > 0])
    source = np.maximum.accumulate(np.where(np.concatenate([[True], sampled]), np.arange(PIECE + 1), 0))[1:]
    values, mask = values[source], mask[source]
    return (values[-1], mask[-1]), (values, mask)


def _audio(stream, encoder):
    """(tokens, width) and mask, piece by piece."""
    held, samples, size = [], 0, PIECE * SAMPLES_PER_FRAME
    for piece in stream:
        while len(piece):
            taken = piece[: size - samples]
            held.append(taken)
            samples += len(taken)
            piece = piece[len(taken) :]
            if samples == size:
                yield _heard(np.concatenate(held), encoder)
                held, samples = [], 0
    if num_frames(samples, published=True):
        yield _heard(np.concatenate(held), encoder)


def _heard(samples, encoder):
    count = num_frames(len(samples), published=True)
    frames = samples[: count * SAMPLES_PER_FRAME].reshape(count, SAMPLES_PER_FRAME)
    mask = np.sqrt(np.square(frames, dtype=np.float64).mean(1)) > SILENCE
    if not mask.any():
        return np.zeros((count, encoder.config.d_model), np.float32), mask
    windows = audio_features(encoder, samples, published=True)
    return windows[:, _OWN_POSITIONS, 1:].mean((1, 2)).numpy(), mask
