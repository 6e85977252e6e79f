"""A script's tags as a timeline: each emotion is there when its first word starts."""

from ..emotion.options import LONGEST, check_number
from ..emotion.text import Key, Named, Timed
from ..errors import InputError

FADE = 0.4  # seconds, as long as a face takes from one expression to another
LONGEST_FADE = 10.0
NEUTRAL = Named("neutral")
_GAP = 0.01  # seconds between two keys at least


def script_timeline(script, words, first=NEUTRAL, fade=FADE):
    """The timeline of a script's tags.

    Args:
        script: Script.
        words: its words as Words, in their order.
        first: the emotion before the first tag, Named, Mixed or a value.
        fade: seconds over which an emotion comes, before its first word starts; 0 to 10.

    Returns:
        Timed of `dicetalk.emotion.text`; for a script whose tags never change it, with one key.

    Raises:
        InputError: a fade out of its range.
    """
    fade = check_number(fade, 0.0, LONGEST_FADE, "fade of a script")
    tags = list(script.tags)
    if not tags or tags[0].place > 0:
        keys = [Key(0.0, first)]
    else:
        keys = [Key(0.0, tags.pop(0).emotion)]
    for tag in tags:
        before = keys[-1]
        time = words[tag.place].start if tag.place < len(words) else words[-1].end + fade
        time = min(round(max(time, before.time + _GAP), 2), LONGEST)
        held = round(time - fade, 2)
        if tag.emotion == before.emotion:
            continue
        if fade and held > before.time:
            keys.append(Key(held, before.emotion))
        keys.append(Key(time, tag.emotion, "smooth" if fade else "step"))
    return Timed(tuple(keys))


def script_emotion(script, words, priors, first, fade=FADE, what="emotion"):
    """The emotion of a script: the timeline of its tags, or `first` for a script without any.

    Args:
        script, words, fade: as for `script_timeline`.
        priors: name → Emotion.
        first: the emotion before the first tag: Named, Mixed, or a value.
        what: how an error calls `first`.

    Returns:
        EmotionTimeline, or the value of `first`.

    Raises:
        InputError: as `script_timeline` and `dicetalk.emotion.resolve`; or `first` is a timeline although there are
            tags.
    """
    from ..emotion.parsing import resolve
    from ..emotion.timeline import EmotionTimeline, TimelineKey

    if not script.tags:
        return resolve(first, priors)
    if isinstance(first, (Timed, EmotionTimeline)):
        raise InputError(
            f"{what} is a timeline, and the script has tags, which make one: give one emotion for what comes before "
            "the first tag, or a script without tags."
        )
    keys = script_timeline(script, words, first, fade).keys
    return EmotionTimeline(
        tuple(TimelineKey(key.time, resolve(key.emotion, priors), key.easing) for key in keys),
        name="script",
        provenance="read from a script",
    )
