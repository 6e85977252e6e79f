"""From the text form of an emotion to the value, and back."""

from ..errors import InputError
from .mixing import mix
from .text import Mixed, Named, Timed, format_name, format_number, format_text, parse_text, text_error
from .timeline import EmotionTimeline, TimelineKey
from .value import Emotion, TokenMix


def parse_emotion(text, priors):
    """The emotion that a text describes (`dicetalk.emotion.text` says how).

    Args:
        text: such as `happy:1.3` or `0s neutral; 1.5s (sad 0.7 + fear 0.3)`.
        priors: name → Emotion (or TokenMix, or EmotionTimeline); with "neutral", where intensities other than 1 occur.

    Returns:
        Emotion, TokenMix or EmotionTimeline, named by the text's plainest spelling.

    Raises:
        InputError: one line that names the character and what is wrong there.
    """
    return resolve(parse_text(text, priors), priors, text)


def resolve(tree, priors, text=None):
    """The value of what `parse_text` or `read_argument` returned; a value is returned as it is.

    `priors` are those of `parse_emotion`; `text`, where the tree was read from, is for the errors' positions.
    """
    if not isinstance(tree, (Named, Mixed, Timed)):
        return tree
    text = format_text(tree) if text is None else text
    if not isinstance(tree, Timed):
        return _mood(tree, priors, text)
    keys = []
    for key in tree.keys:
        emotion = _mood(key.emotion, priors, text)
        if isinstance(emotion, EmotionTimeline):
            raise text_error(text, key.emotion.position, "this is a timeline itself; it cannot be placed in another")
        keys.append(TimelineKey(key.time, emotion, key.easing))
    return EmotionTimeline(tuple(keys), name=format_text(tree), provenance="written as text")


def to_text(emotion):
    """The text form of a value, from the names in it: what `parse_emotion` made reads back as the same value.

    Values that were made otherwise are written by their names alone, which may not say all of them.
    """
    if isinstance(emotion, EmotionTimeline):
        return "; ".join(
            f"{format_number(key.time)}s {to_text(key.emotion)}" + (f" {key.easing}" if key.easing != "linear" else "")
            for key in emotion.keys
        )
    try:
        tree = parse_text(emotion.name)
        if isinstance(tree, (Named, Mixed)) and format_text(tree) == emotion.name:
            return emotion.name
    except InputError:
        pass
    if isinstance(emotion, TokenMix) and not emotion.name:
        return (
            "tokens(" + " + ".join(f"{to_text(part)} {format_number(weight)}" for weight, part in emotion.parts) + ")"
        )
    return format_name(emotion.name or "unnamed")


def _mood(tree, priors, text):
    if isinstance(tree, Named):
        if tree.name not in priors:
            raise text_error(text, tree.position, f"there is no emotion {format_name(tree.name)}")
        emotion = priors[tree.name].renamed(tree.name)
    else:
        parts = [_mood(part, priors, text) for _, part in tree.parts]
        try:
            emotion = mix(parts, [weight for weight, _ in tree.parts], tree.method)
        except InputError as error:
            raise text_error(text, tree.position, str(error).rstrip(".")) from None
    if tree.intensity != 1:
        neutral = priors.get("neutral")
        if not isinstance(neutral, Emotion):
            raise text_error(text, tree.position, "an intensity needs the emotion neutral, which is not there")
        emotion = emotion.with_intensity(neutral, tree.intensity)
    named = isinstance(tree, Named) and tree.intensity == 1
    return emotion if named else emotion.renamed(format_text(tree), emotion.provenance)
