"""Drawn people: what one looks like, how one shows an emotion, and how one sounds, each a few numbers."""

import numbers
import reprlib
from dataclasses import dataclass, field

import numpy as np

from ..emotion.options import NAMES
from ..errors import InputError
from ..reading.face_actions import FEATURES, PROTOTYPES

MOST_PEOPLE = 2**32

HAIR_STYLES = ("short", "parted", "fringe", "bob", "long", "buns", "curly", "quiff", "bald")
GLASSES = (*("none",) * 8, "round", "square")
BEARDS = (*("none",) * 4, "stubble", "moustache", "full")
CLOTHES = ("crew", "v-neck", "collar", "hood")
_SKINS = ((255, 226, 203), (246, 205, 172), (229, 179, 136), (201, 143, 98), (150, 97, 64), (103, 66, 46))
_HAIRS = (
    *((38, 30, 32), (62, 42, 34), (104, 66, 40), (142, 84, 46), (178, 92, 44), (214, 166, 92), (233, 206, 142)),
    *((150, 148, 152), (214, 214, 218), (126, 52, 62), (74, 84, 138)),
)
_EYES = ((74, 48, 32), (112, 74, 40), (92, 122, 62), (70, 124, 170), (104, 118, 132), (44, 36, 34))
_FABRICS = (
    *((214, 84, 76), (236, 160, 64), (246, 208, 92), (104, 168, 108), (60, 140, 150), (70, 104, 176), (122, 92, 168)),
    *((216, 120, 160), (72, 78, 92), (240, 236, 226), (150, 106, 78)),
)
_WALLS = (
    *((188, 216, 232), (204, 226, 204), (244, 220, 190), (232, 206, 222), (212, 208, 236), (246, 232, 200)),
    *((178, 206, 206), (222, 214, 206)),
)

# Each emotion's form to begin with, by its place in PROTOTYPES: the one that a drawing shows best.
_USUAL_FORM = {"sad": 3, "disgusted": 1}


@dataclass(frozen=True)
class Manner:
    """How a person shows emotions.

    Attributes:
        gains: one number for each of FEATURES, around 1: how strongly the action unit moves.
        lopsided: one number for each of FEATURES: the left side moves this share more, and the right side less.
        forms: for each of NAMES, which of the emotion's prototypes is this person's own, beside the usual one.
        own: 0 to 1, how much of it there is.
        side: "Left" or "Right", the side of contempt and of an unsure look.
        lively: how much the head moves.
        blinks: a second.
    """

    gains: tuple
    lopsided: tuple
    forms: tuple
    own: float
    side: str
    lively: float
    blinks: float


@dataclass(frozen=True)
class Voice:
    """How a person sounds.

    Attributes:
        pitch: usual, in Hz.
        formants: factor on the formants' frequencies; a shorter vocal tract has more.
        rate: factor on the speed.
        brightness: dB an octave above 500 Hz, added to a usual voice's.
        breath: amplitude of breath, relative to the voice.
    """

    pitch: float
    formants: float
    rate: float
    brightness: float
    breath: float


@dataclass(frozen=True)
class Person:
    """One drawn person. Shares and factors are 1 for the usual; colours are (red, green, blue), 0 to 255.

    `Person.of(number)` draws one; `dataclasses.replace` changes any of it. What is random in a person's takes follows
    the number.

    Raises:
        InputError: a style of hair, glasses, beard or clothes that there is not.
    """

    number: int
    skin: tuple
    hair: tuple
    hair_style: str
    face_width: float
    jaw: float
    chin: float
    ears: float
    eyes: tuple
    eye_size: float
    eye_spacing: float
    eye_tilt: float
    brow_thickness: float
    brow_height: float
    nose_width: float
    nose_length: float
    mouth_width: float
    lips: float
    redness: float
    blush: float
    freckles: bool
    glasses: str
    beard: str
    clothes: str
    fabric: tuple
    wall: tuple
    manner: Manner = field(repr=False)
    voice: Voice = field(repr=False)

    def __post_init__(self):
        choices = {"hair_style": HAIR_STYLES, "glasses": GLASSES, "beard": BEARDS, "clothes": CLOTHES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(
                    f"The {name} of a person is {getattr(self, name)!r}: give one of {', '.join(dict.fromkeys(known))}."
                )

    @classmethod
    def of(cls, number):
        """The person of a number, always the same one.

        Raises:
            InputError: no whole number from 0 to 2^32 - 1.
        """
        number = whole(number, 0, MOST_PEOPLE - 1, "person")
        random = np.random.default_rng([1, number])
        pitch = float(np.exp(random.uniform(np.log(95), np.log(230))))
        deep = pitch < 148
        tone = float(random.beta(0.9, 0.9))
        skin = _between(_SKINS, tone)
        hairs = _HAIRS if random.random() < 0.8 - 0.6 * tone else _HAIRS[:4]
        style = HAIR_STYLES[int(random.choice(len(HAIR_STYLES), p=_style_shares(deep)))]
        wall = _WALLS[int(random.integers(len(_WALLS)))]
        return cls(
            number=number,
            skin=skin,
            hair=shade(hairs[int(random.integers(len(hairs)))], random.uniform(0.9, 1.1)),
            hair_style=style,
            face_width=_about(random, 1, 0.085),
            jaw=_about(random, 1.0 if deep else 0.94, 0.09),
            chin=_about(random, 1, 0.04),
            ears=_about(random, 1, 0.15),
            eyes=_EYES[int(random.integers(len(_EYES)))],
            eye_size=_about(random, 1, 0.09),
            eye_spacing=_about(random, 1, 0.05),
            eye_tilt=_about(random, 0, 0.016),
            brow_thickness=_about(random, 1.1 if deep else 0.9, 0.22),
            brow_height=_about(random, 0, 0.014),
            nose_width=_about(random, 1, 0.16),
            nose_length=_about(random, 1, 0.13),
            mouth_width=_about(random, 1, 0.09),
            lips=_about(random, 0.85 if deep else 1.1, 0.18),
            redness=float(random.uniform(0.1, 0.5) if deep else random.uniform(0.25, 0.9)),
            blush=float(random.uniform(0, 1)),
            freckles=bool(random.random() < 0.2),
            glasses=GLASSES[int(random.integers(len(GLASSES)))],
            beard=BEARDS[int(random.integers(len(BEARDS)))] if deep else "none",
            clothes=CLOTHES[int(random.integers(len(CLOTHES)))],
            fabric=_unlike(random, _FABRICS, skin, wall),
            wall=shade(wall, random.uniform(0.92, 1.04)),
            manner=_manner(random),
            voice=Voice(
                pitch=pitch,
                formants=float(0.92 + 0.2 * np.clip((pitch - 95) / 135, 0, 1) + random.uniform(-0.04, 0.04)),
                rate=_about(random, 1, 0.07),
                brightness=_about(random, 0, 1.2),
                breath=float(random.uniform(0.01, 0.05)),
            ),
        )


def _manner(random):
    return Manner(
        gains=tuple(_about(random, 1, 0.12) for _ in FEATURES),
        lopsided=tuple(_about(random, 0, 0.07) for _ in FEATURES),
        forms=tuple(int(random.integers(len(PROTOTYPES[name]))) for name in NAMES),
        own=float(random.uniform(0.15, 0.45)),
        side="Left" if random.random() < 0.5 else "Right",
        lively=float(random.uniform(0.6, 1.5)),
        blinks=float(random.uniform(0.2, 0.45)),
    )


def whole(value, low, high, what):
    """`value` as an int when it is a whole number from low to high, else InputError that says what it is of."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= value <= high:
        raise InputError(f"The {what} is {reprlib.repr(value)}: give a whole number from {low} to {high}.")
    return int(value)


def usual_form(emotion):
    """Action units of the form that everyone shares: a text as in PROTOTYPES."""
    return PROTOTYPES[emotion][_USUAL_FORM.get(emotion, 0)]


def _about(random, centre, deviation):
    """Normal, but never more than two deviations off."""
    return float(centre + deviation * np.clip(random.standard_normal(), -2, 2))


def _style_shares(deep):
    shares = np.array([4, 3, 2, 0.3, 0.7, 0.5, 2, 3, 1.5] if deep else [0.7, 1, 2, 3, 4, 2, 2.5, 0.5, 0])
    return shares / shares.sum()


def _unlike(random, colours, *others):
    """One of the colours, drawn again as long as it is hardly another one than one of the others."""
    while True:
        colour = colours[int(random.integers(len(colours)))]
        if all(sum(abs(a - b) for a, b in zip(colour, other, strict=True)) > 110 for other in others):
            return colour


def _between(colours, place):
    """The colour at a place, 0 to 1, along a list of them."""
    place = place * (len(colours) - 1)
    low = min(int(place), len(colours) - 2)
    return mixed(colours[low], colours[low + 1], place - low)


def mixed(first, second, share):
    """A colour between two, `share` of it the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def shade(colour, factor):
    return tuple(min(255, round(value * factor)) for value in colour)
