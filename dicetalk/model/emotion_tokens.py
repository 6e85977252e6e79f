"""From an emotion and a number of frames to the tokens that the UNet takes.

Frame i is evaluated at i / fps, the time at which a player shows it: a step at 0 s holds from the first frame on, and
doubling the frame rate leaves every key where it was. Frames that are equal are computed once, in small batches.
"""

import torch

from ..emotion.options import FPS
from ..emotion.timeline import EmotionTimeline
from ..errors import InputError
from ..memory import gathered

AT_ONCE = 1024  # emotions whose tokens are on the device at a time, before they come to the CPU


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


def distinct_tokens(model, emotion, num_frames, fps=FPS, device=None, dtype=None, on_chunk=None):
    """The tokens of a clip without its repetitions.

    Args:
        model: EmotionModel.
        emotion, num_frames, fps: see `frame_emotions`.
        device, dtype: where and in which type the model computes; those of its weights when None.
        on_chunk: called as `on_chunk(done, total)` every few emotions; what it raises ends the work.

    Returns:
        (U, tokens, width) and an index into it per frame, (num_frames,) int64; both on the CPU.
    """
    values, index = frame_emotions(emotion, num_frames, fps)
    return value_tokens(model, values, device, dtype, on_chunk), index


def emotion_tokens(model, emotion, num_frames, fps=FPS, device=None, dtype=None, on_chunk=None):
    """The tokens of every frame: (num_frames, tokens, width), or (1, tokens, width) when all frames are the same; on
    the CPU.

    Arguments as for `distinct_tokens`, which needs less memory for long clips.
    """
    tokens, index = distinct_tokens(model, emotion, num_frames, fps, device, dtype, on_chunk)
    return tokens if len(tokens) in (1, num_frames) else tokens[index]  # all distinct: they are in order


def bank_options(emotion):
    """The BankOptions that the unconditional tokens go with: those of the emotion, or of the first of its several."""
    first = emotion.keys[0].emotion if hasattr(emotion, "keys") else emotion
    return first.parts[0][1].bank


def value_tokens(model, values, device=None, dtype=None, on_chunk=None):
    """The tokens of a list of N Emotions or TokenMixes, (N, tokens, width) on the CPU; see `distinct_tokens`."""
    return _mixed(model, values, *model.placement(device, dtype), on_chunk)


def value_usage(model, values, device=None, dtype=None):
    """How much each of N Emotions or TokenMixes uses each code, (N, heads, codes) float32; see `EmotionModel.usage`."""
    return _mixed(model.usage, values, *model.placement(device, dtype))


def _mixed(compute, values, device, dtype, on_chunk=None):
    """What `compute(means, bank, on_chunk)` gives for each value; for a mix by tokens, its parts' weighted mean.

    Each Gaussian among the values and their parts is computed once, together with all of the same bank options.
    """
    gaussians = {part.digest(): part for value in values for _, part in value.parts}
    groups = {}
    for gaussian in gaussians.values():
        groups.setdefault(gaussian.bank, []).append(gaussian)
    row = {gaussian.digest(): number for number, gaussian in enumerate(g for group in groups.values() for g in group)}
    finished = 0

    def report(done, _):
        if on_chunk is not None:
            on_chunk(finished + done, len(gaussians))

    def pieces():
        nonlocal finished
        for bank, group in groups.items():
            means = torch.stack([gaussian.mean for gaussian in group]).to(device, dtype)
            for part in means.split(AT_ONCE):
                yield compute(part, bank, report).cpu()
                finished += len(part)

    computed = gathered(pieces(), len(gaussians))
    if len(computed) == len(values) and all(
        len(value.parts) == 1 and row[value.parts[0][1].digest()] == number for number, value in enumerate(values)
    ):
        return computed
    mixed = computed.new_empty(len(values), *computed.shape[1:])
    for number, value in enumerate(values):
        if len(value.parts) == 1:
            mixed[number] = computed[row[value.parts[0][1].digest()]]
        else:
            mixed[number] = sum(share * computed[row[part.digest()]].float() for share, part in value.parts)
    return mixed
