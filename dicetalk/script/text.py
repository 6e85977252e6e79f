"""The text of a script: words as they are spoken, with tags in brackets that say which emotion they are spoken with.

    [happy] Hello there. [sad 0.7] I have to go. [(sad 0.7 + fear 0.3)] Take care.

A tag holds an emotion in the text form of `dicetalk.emotion.text`, without times; a number after it is its intensity,
so that [sad 0.7] is [sad:0.7]. It is for the words up to the next tag. This module needs no PyTorch.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ..emotion.text import Timed, format_text, one_line, parse_text
from ..emotion.words import NAME_OF_FORM
from ..errors import InputError

LONGEST_TEXT = 200_000  # characters; two days of speech have fewer
SUFFIX = ".txt"

_PIECE = re.compile(r"[\[［【]([^\[\]［］【】]*)[\]］】]|([\[\]［］【】])")
_OTHER_BRACKETS = re.compile(r"[(（<{*]\s*([^\W\d_]+)\s*[)）>}*]")
# Scripts that are written without spaces: each character is a word of its own.
_CHARACTER = r"[\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
_WORD = re.compile(rf"{_CHARACTER}|(?:(?!{_CHARACTER})\S)+")


@dataclass(frozen=True)
class Written:
    """A word as it is written, with its punctuation; `spaced` is whether a space is before it."""

    text: str
    spaced: bool = True


@dataclass(frozen=True)
class Tag:
    """An emotion (Named or Mixed of `dicetalk.emotion.text`) from the word number `place` on; as many as there are
    words where it comes after the last. `position` is where it is in the text, from 0."""

    place: int
    emotion: object
    position: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Script:
    """What is said: (Written, ...) and (Tag, ...), in their order."""

    words: tuple
    tags: tuple


def parse_script(text, names=None):
    """Read the text of a script.

    Args:
        text: see the module's description; at most 200,000 characters.
        names: the emotions that may occur in tags; any when None.

    Returns:
        Script.

    Raises:
        InputError: no words, a bracket alone, or a tag that is no emotion; names the tag.
    """
    if not isinstance(text, str):
        raise InputError(f"The script must be text, such as [happy] Hello there, not {type(text).__name__}.")
    if len(text) > LONGEST_TEXT:
        raise InputError(f"The script is {len(text)} characters long; {LONGEST_TEXT} is the most.")
    for other in _OTHER_BRACKETS.finditer(_PIECE.sub(lambda tag: " " * len(tag.group()), text)):
        if other.group(1).casefold() in NAME_OF_FORM:
            raise InputError(
                f'Script, at character {other.start() + 1}, "{other.group()}": emotions are in square brackets, such '
                f"as [{other.group(1)}]; what is in others is spoken."
            )
    words, tags, at = [], [], 0
    for piece in _PIECE.finditer(text):
        _add_words(words, text[at : piece.start()])
        at = piece.end()
        if piece.group(2):
            where = one_line(text[piece.start() : piece.start() + 24])
            raise InputError(
                f'Script, at character {piece.start() + 1}, "{where}": a bracket without its other one. Brackets are '
                "for emotions, such as [happy]."
            )
        tag = Tag(len(words), _emotion(piece, len(tags) + 1, names), piece.start())
        if tags and tags[-1].place == tag.place:
            tags.pop()  # no word is spoken with it
        tags.append(tag)
    _add_words(words, text[at:])
    if not words:
        raise InputError("The script holds no words: write what is said, such as [happy] Hello there.")
    return Script(tuple(words), tuple(tags))


def read_script(argument, names=None):
    """The script that a person gave: its text, or the path of a text file (it ends in .txt).

    Raises:
        InputError: a file that is missing or is no UTF-8 text; and as `parse_script`.
    """
    if not is_file(argument):
        return parse_script(argument, names)
    given = os.fspath(argument).strip()
    try:
        with open(given, "rb") as file:
            content = file.read(4 * LONGEST_TEXT + 4)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"The script {given} cannot be read ({error.strerror}): check the file's name, or give the text."
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"The script {given} is not UTF-8 text: save it as UTF-8.") from None
    try:
        return parse_script(text, names)
    except InputError as error:
        raise InputError(f"{Path(given)}: {error}") from None


def is_file(argument):
    """Whether what was given for a script is the path of a text file."""
    given = os.fspath(argument).strip() if isinstance(argument, (str, os.PathLike)) else ""
    return given.lower().endswith(SUFFIX) and "\n" not in given and "[" not in given


def plain_text(words):
    """The words as one line, with spaces where the script has them."""
    return "".join(" " * (word.spaced and place > 0) + word.text for place, word in enumerate(words))


def _add_words(words, text):
    end = 0
    for match in _WORD.finditer(text):
        word = match.group()
        spaced = match.start() > end or end == 0
        end = match.end()
        if any(map(str.isalnum, word)):
            words.append(Written(word, spaced))
        elif words:  # a dash, or a quote, of its own is not spoken; before the first word it is left out
            words[-1] = Written(words[-1].text + " " * (spaced and word not in ",.;:!?…") + word, words[-1].spaced)


def _emotion(piece, number, names):
    content = piece.group(1).strip()
    shown = f'Script, tag {number}, "[{one_line(content)[:40]}]"'
    if not content:
        raise InputError(f"{shown}: it is empty; write an emotion such as [happy] or [sad 0.7].")
    try:
        tree = parse_text(content, names)
    except InputError as error:
        raise InputError(f"{shown}: {error}") from None
    if isinstance(tree, Timed):
        raise InputError(
            f"{shown}: a tag holds one emotion without times, which come from the words: write {_first(tree)}."
        )
    return tree


def _first(tree):
    return f"[{format_text(tree.keys[0].emotion)}]"
