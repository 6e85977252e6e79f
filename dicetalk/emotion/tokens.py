"""From an emotion and a number of frames to the tokens that the UNet takes.

Frame i is evaluated at i / fps, the time at which a player shows it: a step at 0 s holds from the first frame on, and
doubling the frame rate leaves every key where it was. Frames that are equal are computed once, in small batches.
"""

import torch

from ..errors import InputError
from .timeline import FPS, EmotionTimeline


def frame_emotions(emotion, num_frames, fps=FPS):
    """The distinct emotions of a clip and which of them each frame shows.

    Args:
        emotion: Emotion, TokenMix or EmotionTimeline.
        num_frames: 1 or more.
        fps: frames per second.

    Returns:
        A list of U Emotions or TokenMixes, and an index into it per frame, (num_frames,) int64. U is 1 for all but
        timelines, and for timelines that do not change.
    """
    if num_frames < 1:
        raise InputError(f"The number of frames must be 1 or more, not {num_frames}.")
    if not isinstance(emotion, EmotionTimeline):
        return [emotion], torch.zeros(num_frames, dtype=torch.int64)
    distinct, positions = {}, []
    for frame in range(num_frames):
        shown = emotion.at(frame / float(fps))
        positions.append(distinct.setdefault(shown.digest(), (len(distinct), shown))[0])
    return [shown for _, shown in distinct.values()], torch.tensor(positions)


def frame_means(emotion, num_frames, fps=FPS):
    """The mean per frame, on the CPU: (num_frames, 256), or (1, 256) when all frames are the same."""
    values, index = frame_emotions(emotion, num_frames, fps)
    means = torch.stack([value.mean for value in values])
    return means if len(means) == 1 else means[index]


def distinct_tokens(model, emotion, num_frames, fps=FPS, device=None, dtype=None, on_chunk=None):
    """The tokens of a clip without its repetitions.

    Args:
        model: EmotionModel.
        emotion, num_frames, fps: see `frame_emotions`.
        device, dtype: where and in which type the model computes; those of its weights when None.
        on_chunk: called as `on_chunk(done, total)` every few emotions; what it raises ends the work.

    Returns:
        (U, tokens, width) and an index into it per frame, (num_frames,) int64 on the CPU.
    """
    values, index = frame_emotions(emotion, num_frames, fps)
    return value_tokens(model, values, device, dtype, on_chunk), index


def emotion_tokens(model, emotion, num_frames, fps=FPS, device=None, dtype=None, on_chunk=None):
    """The tokens of every frame: (num_frames, tokens, width), or (1, tokens, width) when all frames are the same.

    Arguments as for `distinct_tokens`, which needs less memory for long clips.
    """
    tokens, index = distinct_tokens(model, emotion, num_frames, fps, device, dtype, on_chunk)
    return tokens if len(tokens) == 1 else tokens[index.to(tokens.device)]


def value_tokens(model, values, device=None, dtype=None, on_chunk=None):
    """The tokens of a list of N Emotions or TokenMixes, (N, tokens, width); see `distinct_tokens`.

    Each Gaussian among them and their parts goes through the bank once; a mix by tokens is then the weighted mean.
    """
    device, dtype = model.placement(device, dtype)
    gaussians = {part.digest(): part for value in values for _, part in value.parts}
    row = {digest: number for number, digest in enumerate(gaussians)}
    groups = {}
    for digest, gaussian in gaussians.items():
        groups.setdefault(gaussian.bank, []).append(digest)
    tokens, done = None, 0
    for bank, digests in groups.items():
        means = torch.stack([gaussians[digest].mean for digest in digests]).to(device, dtype)

        def report(count, _, before=done):
            if on_chunk is not None:
                on_chunk(before + count, len(gaussians))

        group = model(means, bank, on_chunk=report)
        done += len(digests)
        if len(groups) == 1:
            tokens = group
        else:
            tokens = group.new_empty(len(gaussians), *group.shape[1:]) if tokens is None else tokens
            tokens[[row[digest] for digest in digests]] = group
    if all(len(value.parts) == 1 for value in values) and len(gaussians) == len(values):
        return tokens
    result = tokens.new_empty(len(values), *tokens.shape[1:])
    for number, value in enumerate(values):
        if len(value.parts) == 1:
            result[number] = tokens[row[value.parts[0][1].digest()]]
        else:
            result[number] = sum(share * tokens[row[part.digest()]].float() for share, part in value.parts)
    return result
