"""Emotions from facial actions: blendshapes, scored against the prototypes of the basic emotions.

The prototypes are those of EMFACS (Friesen and Ekman, EMFACS-7: Emotional Facial Action Coding System, University of
California at San Francisco, 1983; see also Ekman, Friesen and Hager, FACS Investigator's Guide, 2002): which action
units (AU) move together in each emotion, with reduced forms of them. Contempt is the one that moves one side of the
face (Ekman and Friesen, "A new pan-cultural facial expression of emotion", Motivation and Emotion 10, 1986).

A blendshape means the action unit that moves the same part of the face. ARKit has none of its own for AU23 (lips
tightened) and AU24 (lips pressed): mouthPress is used for both. MediaPipe's blendshapes for AU6 and AU9 are reported to
stay near 0, and AU5's often so, which is why each emotion has forms that go without them.

The numbers below (spread, strengths, rest) are this project's choice, not fitted to recordings.
"""

import numpy as np

from ..emotion.options import NAMES
from .clip import BLENDSHAPES

# Action unit → the blendshapes whose mean it is; "12" and "14" are what both sides do, "one side" what one does more.
UNITS = {
    "1": ("browInnerUp",),
    "2": ("browOuterUpLeft", "browOuterUpRight"),
    "4": ("browDownLeft", "browDownRight"),
    "5": ("eyeWideLeft", "eyeWideRight"),
    "6": ("cheekSquintLeft", "cheekSquintRight"),
    "7": ("eyeSquintLeft", "eyeSquintRight"),
    "9": ("noseSneerLeft", "noseSneerRight"),
    "10": ("mouthUpperUpLeft", "mouthUpperUpRight"),
    "12": ("mouthSmileLeft", "mouthSmileRight"),
    "14": ("mouthDimpleLeft", "mouthDimpleRight"),
    "15": ("mouthFrownLeft", "mouthFrownRight"),
    "16": ("mouthLowerDownLeft", "mouthLowerDownRight"),
    "17": ("mouthShrugLower",),
    "20": ("mouthStretchLeft", "mouthStretchRight"),
    "24": ("mouthPressLeft", "mouthPressRight"),
    "26": ("jawOpen",),
}
_ONE_SIDED = ("12", "14")
FEATURES = (*UNITS, "one side")

PROTOTYPES = {
    "happy": ("6 12", "12", "6 12 26", "12 10"),
    "sad": ("1 4 15", "1 4", "1 15", "1 4 15 17", "6 15"),
    "surprised": ("1 2 5 26", "1 2 26", "1 2 5"),
    "fear": ("1 2 4 5 20 26", "1 2 4 5 7 20", "1 2 4 20", "1 2 4 5", "1 2 5 20"),
    "angry": ("4 5 7 24", "4 7 24", "4 5 7", "4 7", "4 5 7 10 26", "4 24"),
    "disgusted": ("9", "9 10", "9 15 16", "10 17", "9 17", "10", "4 7 9 10"),
    "contempt": ("one side",),
    "neutral": ("",),
}
STRENGTHS = (0.3, 0.6, 0.9)  # of a movement: slight, marked, strong; equally likely

# How far a feature may vary from its prototype. Speech moves the lower face whatever the emotion, most of all the jaw.
_SPREAD = dict.fromkeys(FEATURES, 0.2) | {"10": 0.25, "16": 0.35, "17": 0.25, "20": 0.25, "24": 0.25, "26": 0.4}

# What a face at rest shows, before its own rest is known: lids are rarely wide open. A person's own rest may be above
# it by no more than _MOST_REST, so that one who smiles all the time is still smiling.
_REST = dict.fromkeys(FEATURES, 0.05) | {"7": 0.25}
_MOST_REST = 0.2
_REST_PERCENTILE = 10
_REST_SECONDS = 10.0  # after which a person's own rest and the usual one count the same
_REST_MOVEMENT = 0.2  # a face that moves less than this says little on its rest


def features(blendshapes):
    """(n, 52) blendshapes → (n, 17) float64 in 0..1, columns as FEATURES; rows of NaN stay so."""
    blendshapes = np.clip(np.asarray(blendshapes, dtype=np.float64), 0, 1)
    result = np.zeros((len(blendshapes), len(FEATURES)))
    one_side = np.zeros(len(blendshapes))
    for column, (unit, names) in enumerate(UNITS.items()):
        sides = blendshapes[:, [BLENDSHAPES.index(name) for name in names]]
        if unit in _ONE_SIDED:
            result[:, column] = sides.min(1)
            one_side += sides.max(1) - sides.min(1)
        else:
            result[:, column] = sides.mean(1)
    result[:, -1] = np.minimum(one_side, 1)
    return result


def without_rest(values, seconds):
    """What a face does beyond its rest, 0 to 1.

    The rest is the usual one at first. The longer a clip and the more the face moves in it, the more the face's own
    lowest level (the 10th percentile) takes its place: a single picture, or a still, says nothing on what is rest.

    Args:
        values: (steps, 17) features, rows of NaN without a face; at least one row is not.
        seconds: how long the face is seen.
    """
    usual = np.array([_REST[name] for name in FEATURES])
    seen = values[~np.isnan(values[:, 0])]
    own, high = np.percentile(seen, (_REST_PERCENTILE, 100 - _REST_PERCENTILE), axis=0)
    movement = min(1.0, float((high - own).max()) / _REST_MOVEMENT)
    trust = movement * seconds / (seconds + _REST_SECONDS)
    rest = np.minimum(usual + trust * (own - usual), usual + _MOST_REST)
    return np.maximum(values - rest, 0) / (1 - rest)


def probabilities(values):
    """How well each emotion explains the features: (n, 17), rest taken off → (n, 8), rows sum to 1, NaN stays.

    An emotion's likelihood is the mean over its prototypes and strengths of a Gaussian about the strength in the
    prototype's features and 0 in the others; all emotions are equally likely beforehand.
    """
    spread = np.array([_SPREAD[name] for name in FEATURES])
    likelihoods = np.stack([_log_likelihood(values, name, spread) for name in NAMES], axis=1)
    likelihoods = np.exp(likelihoods - likelihoods.max(1, keepdims=True))
    return likelihoods / likelihoods.sum(1, keepdims=True)


def _log_likelihood(values, emotion, spread):
    centres = np.array(
        [
            [strength if name in prototype.split(" ") or name == prototype else 0.0 for name in FEATURES]
            for prototype in PROTOTYPES[emotion]
            for strength in STRENGTHS
        ]
    )
    values, centres = values / spread, centres / spread
    distances = (values**2).sum(1, keepdims=True) - 2 * values @ centres.T + (centres**2).sum(1)
    least = distances.min(1, keepdims=True)
    return np.log(np.exp((least - distances) / 2).mean(1)) - least[:, 0] / 2
