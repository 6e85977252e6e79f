"""The text form of an emotion: what a person types, as a syntax tree.

    happy                                             one of the eight, or the name of a saved emotion
    happy:1.3                                         at an intensity from 0 (neutral) to 2
    "my smile":0.5                                    a name that is not a plain word, in quotes (\\" and \\\\ inside)
    (sad 0.7 + fear 0.3)                              a mix by relative weights; a missing weight is 1
    moments(sad + fear), tokens(sad + fear)           the other mixing methods; (…) is barycentre(…)
    (sad 0.7 + fear:1.5 0.3):1.2                      a mix has an intensity too, and can hold mixes
    0s neutral; 1.5s happy:1.2 smooth; 4s (sad + fear) step
                                                      a timeline: increasing times in seconds, up to 172800 (two
                                                      days), and how each emotion is reached from the one before:
                                                      linear (when none is said), smooth or step

What people write otherwise is read as it is meant: happy 1.3, happy=1.3, happy:130%; sad 70% + fear 30% without
parentheses, or with a comma; decimal commas; times such as 1:02.5 and 500 ms; keys of a timeline in lines of their own
or after commas; signs of a Chinese keyboard, and any quotes. Names may have other capitals, and the forms and
translations of `dicetalk.emotion.words`.

This module needs no PyTorch and no emotion: `parse_text` can refuse a wrong text at once. `resolve` makes it a value.
"""

import difflib
import math
import re
from dataclasses import dataclass, field, replace

from ..errors import InputError
from .options import EASINGS, LONGEST, MAX_INTENSITY, METHODS, SUFFIX
from .words import NAME_OF_NEAR, known_name

MAX_LENGTH = 4096
MAX_DEPTH = 16

_WORD = re.compile(r"[^\W\d][\w-]*")
_WORDS = re.compile(r"\s*([^\W\d][\w-]*(?: [^\W\d][\w-]*)+)\s*")
_NUMBER = re.compile(r"-?(?:\d+(?:\.\d*|,\d+)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_CLOCK = re.compile(r"(?:([0-9]+):)?([0-9]+):([0-9]+(?:[.,][0-9]*)?)(?:\s*s(?![\w-]))?")
_FRAMES = re.compile(r"[:;][0-9]")
_SECONDS = re.compile(r"\s*(ms|[sS]|secs?|seconds?)(?![\w-])")
_PART = re.compile(r'[^\W\d]|["(]')
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_QUOTED_PART = re.compile(r'("(?:[^"\\]|\\["\\])*")')
_SPACE = re.compile(r"\s*")
# Of a Chinese keyboard, and the quotes of word processors; each is one character, so that places stay.
_SIGNS = str.maketrans("：；，（）＋％＝“”„‟«»「」『』‘’'", ":;,()+%=" + '"' * 13)


@dataclass(frozen=True)
class Named:
    """An emotion by its name, at an intensity. `position` is where it is in the text, from 0."""

    name: str
    intensity: float = 1.0
    position: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Mixed:
    """A mix: ((weight, Named or Mixed), ...), at an intensity."""

    parts: tuple
    method: str = "barycentre"
    intensity: float = 1.0
    position: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Key:
    """An emotion of a timeline, Named or Mixed, at a time in seconds."""

    time: float
    emotion: object
    easing: str = "linear"
    position: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Timed:
    """A timeline: (Key, ...) in the order of their times."""

    keys: tuple
    position: int = field(default=0, compare=False)


def parse_text(text, names=None):
    """Read the text form of an emotion.

    Args:
        text: see the module's description; at most 4,096 characters.
        names: the names that may occur; any when None.

    Returns:
        Named, Mixed or Timed.

    Raises:
        InputError: one line that names the character (from 1) and what is wrong there.
    """
    if not isinstance(text, str):
        raise InputError(f"The emotion must be text, such as happy or happy:1.3, not {type(text).__name__}.")
    if len(text) > MAX_LENGTH:
        raise InputError(f"The emotion's text is {len(text)} characters long; {MAX_LENGTH} is the most.")
    return _Parser(text, None if names is None else list(names)).whole()


def read_argument(argument, names=None):
    """What a person gave for an emotion: its text form, or the path of a saved one (it ends in .safetensors).

    Checks all that can be checked before the priors are at hand; `resolve` does the rest.

    Args:
        argument: text or path.
        names: the names that may occur in a text; any when None.

    Returns:
        A syntax tree, or the loaded value.
    """
    if str(argument).strip().lower().endswith(SUFFIX):
        from .files import load_emotion

        return load_emotion(str(argument).strip())
    return parse_text(argument, names)


def one_line(text):
    """The text with spaces for what no label holds: tabs, line breaks, the narrow spaces in macOS's names of files."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def text_error(text, position, problem):
    """The InputError for a problem at a position (from 0) of a text."""
    rest = one_line(text[position : position + 24])
    where = f'at character {position + 1}, "{rest}"' if rest else "at the end"
    return InputError(f"Emotion text, {where}: {problem}.")


def format_text(tree):
    """The text of a syntax tree, in its plainest spelling: `parse_text(format_text(tree)) == tree`."""
    if isinstance(tree, Timed):
        return "; ".join(
            f"{format_number(key.time)}s {format_text(key.emotion)}"
            + (f" {key.easing}" if key.easing != "linear" else "")
            for key in tree.keys
        )
    if isinstance(tree, Named):
        body = format_name(tree.name)
    else:
        parts = (
            format_text(part) + (f" {format_number(weight)}" if weight != 1 else "") for weight, part in tree.parts
        )
        body = ("" if tree.method == "barycentre" else tree.method) + "(" + " + ".join(parts) + ")"
    return body + (f":{format_number(tree.intensity)}" if tree.intensity != 1 else "")


def format_name(name):
    """A name as the text form writes it: in quotes unless it is a plain word."""
    if _WORD.fullmatch(name) and name not in EASINGS:
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def format_number(value):
    """The shortest text that reads back as the same number."""
    return repr(float(value)).removesuffix(".0")


def _plain(text):
    """The text with the usual signs, and as long; what is in straight quotes stays."""
    parts = _QUOTED_PART.split(text)
    return "".join(part if number % 2 else part.translate(_SIGNS) for number, part in enumerate(parts))


class _Parser:
    """Recursive descent; `at` is the position of the next character that is not a space."""

    def __init__(self, text, names):
        self.written, self.text, self.names, self.at, self.depth = text, _plain(text), names, 0, 0
        self.skip()

    def fail(self, problem, position=None):
        raise text_error(self.written, self.at if position is None else position, problem)

    def skip(self):
        self.at = _SPACE.match(self.text, self.at).end()

    def take(self, pattern):
        """The match of a compiled pattern here, passed over with the spaces behind it; None where it does not match."""
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()
            self.skip()
        return match

    def take_sign(self, sign):
        found = self.text.startswith(sign, self.at)
        if found:
            self.at += len(sign)
            self.skip()
        return found

    def number(self, what, low, high):
        position = self.at
        match = self.take(_NUMBER)
        if not match:
            self.fail(f"expected a number for the {what}")
        value = float(match.group().replace(",", ".")) / (100 if self.take_sign("%") else 1)
        self.check(what, value, low, high, position)
        return value

    def check(self, what, value, low, high, position):
        if not math.isfinite(value) or not low <= value <= high:
            bounds = f"{low:g} or more" if math.isinf(high) else f"from {low:g} to {high:g}"
            self.fail(f"the {what} must be {bounds}", position)

    def whole(self):
        if not self.text.strip():
            self.fail("it is empty; write an emotion such as happy or happy:1.3")
        several = _WORDS.fullmatch(self.text)
        if several:
            name = several.group(1) if self.names is None else known_name(several.group(1), self.names)
            if name is not None:
                return Named(name, position=several.start(1))
        tree = self.timeline() if _NUMBER.match(self.text, self.at) else self.emotion()
        if self.text[self.at :].strip() not in ("", ",", ";"):
            if self.text[self.at] == ";":
                self.fail("the emotions of a timeline need a time each, such as 0s neutral; 1.5s happy")
            if _PART.match(self.text, self.at):
                self.fail("put + between the emotions of a mix, and a name of several words in quotes")
            self.fail("nothing more was expected here")
        return tree

    def timeline(self):
        position, keys = self.at, []
        while True:
            key = self.key()
            if keys and key.time <= keys[-1].time:
                self.fail("the times of a timeline must increase", key.position)
            keys.append(key)
            separated = self.take_sign(";") or self.take_sign(",")
            if self.at == len(self.text):
                break
            if not separated and not self.at_time():
                self.fail("expected ; and the next time, or an easing (linear, smooth, step)")
        return Timed(tuple(keys), position)

    def at_time(self):
        """Whether a time with its unit is here."""
        number = _NUMBER.match(self.text, self.at)
        return bool(_CLOCK.match(self.text, self.at) or number and _SECONDS.match(self.text, number.end()))

    def time(self):
        position = self.at
        clock = self.take(_CLOCK)
        if clock:
            if _FRAMES.match(self.text, self.at):
                self.fail("a time has no frames; write 1:02.5 or 62.5s", position)
            hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in clock.groups())
            value = hours * 3600 + minutes * 60 + seconds
        else:
            match = self.take(_NUMBER)
            if not match:
                self.fail("expected a time in seconds, such as 1.5s")
            if self.text.startswith("%", self.at):
                self.fail("write a share after its emotion, such as (sad 70% + fear 30%)", position)
            unit = self.take(_SECONDS)
            if not unit:
                self.fail("expected s, for seconds, after the time")
            value = float(match.group().replace(",", ".")) / (1000 if unit.group(1) == "ms" else 1)
        self.check("time", value, 0.0, LONGEST, position)
        return value

    def key(self):
        position = self.at
        time = self.time()
        self.take_sign(":")
        emotion = self.emotion()
        easing = "linear"
        word = _WORD.match(self.text, self.at)
        if word:
            easing = word.group().lower()
            if easing not in EASINGS:
                self.fail("expected ; and the next time, or an easing (linear, smooth, step)")
            self.take(_WORD)
        return Key(time, emotion, easing, position)

    def emotion(self):
        """One with its intensity, or a mix that may lack its parentheses."""
        position = self.at
        parts = self.parts()
        if len(parts) > 1:
            return self.mixed(parts, "barycentre", 1.0, position)
        ((weight, part, place),) = parts
        if weight is None:
            return part
        if part.intensity != 1:
            self.fail("it has an intensity already", place)
        self.check("intensity", weight, 0.0, MAX_INTENSITY, place)
        return replace(part, intensity=weight)

    def parts(self):
        """[(weight or None, emotion, position of the weight)] with + or , between them."""
        parts, commas = [], False
        while True:
            part, place = self.mood(), self.at
            weighted = _NUMBER.match(self.text, self.at) and not self.at_time()
            parts.append((self.number("weight", 0.0, math.inf) if weighted else None, part, place))
            comma = self.text.startswith(",", self.at) and _PART.match(
                self.text, _SPACE.match(self.text, self.at + 1).end()
            )
            if comma:
                self.take_sign(",")
                commas = True
            elif not self.take_sign("+"):
                break
        for _, part, _ in parts if commas else ():
            if part.intensity != 1:
                self.fail(
                    "after : comes an intensity; write shares after a space, such as (sad 0.7 + fear 0.3)",
                    part.position,
                )
        return parts

    def mixed(self, parts, method, intensity, position):
        weighted = tuple((1.0 if weight is None else weight, part) for weight, part, _ in parts)
        if not any(weight for weight, _ in weighted):
            self.fail("the weights of a mix must not all be 0", position)
        return Mixed(weighted, method, intensity, position)

    def mood(self):
        position = self.at
        word = _WORD.match(self.text, self.at)
        if self.text.startswith("(", self.at):
            return self.mix("barycentre", position)
        if word and self.text.startswith("(", _SPACE.match(self.text, word.end()).end()):
            if word.group() not in METHODS:
                self.fail(f"the method of a mix must be one of {', '.join(METHODS)}")
            self.take(_WORD)
            return self.mix(word.group(), position)
        return Named(self.name(), self.intensity(), position)

    def name(self):
        position = self.at
        if self.text.startswith('"', self.at):
            match = self.take(_QUOTED)
            if not match:
                self.fail("the quotes are not closed")
            name = re.sub(r"\\(.)", r"\1", match.group(1))
            if not name or not name.isprintable():
                self.fail("a name must not be empty and must not hold control characters", position)
        else:
            match = self.take(_WORD)
            if not match:
                self.fail("expected the name of an emotion")
            name = match.group()
        if self.names is None:
            return name
        found = known_name(name, self.names)
        if found is None:
            close = self.close(name.casefold())
            hint = f"did you mean {format_name(close[0])}?" if close else f"known: {self.known()}"
            self.fail(f"there is no emotion {format_name(name)} ({hint})", position)
        return found

    def close(self, word):
        near = NAME_OF_NEAR.get(word)
        if near in self.names:
            return [near]
        begun = [name for name in self.names if name.casefold().startswith(f"{word} ")]
        return difflib.get_close_matches(word, self.names, n=1) or begun

    def known(self):
        shown = [format_name(name) for name in sorted(self.names)[:20]]
        return ", ".join(shown) + (", …" if len(self.names) > 20 else "") if shown else "none"

    def intensity(self):
        given = self.take_sign(":") or self.take_sign("=")
        return self.number("intensity", 0.0, MAX_INTENSITY) if given else 1.0

    def mix(self, method, position):
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"mixes are nested deeper than {MAX_DEPTH}")
        self.take_sign("(")
        parts = self.parts()
        if not self.take_sign(")"):
            self.fail("expected + or ) in the mix")
        self.depth -= 1
        return self.mixed(parts, method, self.intensity(), position)
