"""Errors as ComfyUI shows them: in words of nodes, sockets and menus, without the command line's."""

import functools
import logging
import re
import sys

from ..dicetalk.errors import InputError

_BUTTON = "Download in Load DICE-Talk"
_DOWNLOAD = r"`python -m dicetalk download[^`]*`"
_REPLACED = (
    # Where the button is told of already, the command is left out; else the button takes its place.
    (rf", or run {_DOWNLOAD}", ""),
    (rf"run {_DOWNLOAD}", f"click {_BUTTON}"),
    (r" with " + _DOWNLOAD, f": click {_BUTTON}"),
    (rf" \({_DOWNLOAD} fetches it\)", ""),
    (r", or give \S.*, the miniature, which knows", ", or choose miniature, which knows"),
    (
        r"run `python -m dicetalk emotion classes [^`]*` once, or leave out the meter",
        "measure it once, as the node's help says, or switch off meter",
    ),
    (r", or name another folder with --output", ""),
    (r"with --face x1,y1,x2,y2 \(in ComfyUI with the input bboxes or mask\)", "with the input bboxes or mask"),
    (r"with --face left or right, or ", "with the input face, or "),
    (r" \(--[^)]*\)", ""),
)


def in_comfyui(text):
    """The library's message with the node's button in the place of the command and its flags."""
    for pattern, words in _REPLACED:
        text = re.sub(pattern, words, text)
    return text


def speak_comfyui(node):
    """Have a node's InputErrors say what they say `in_comfyui`."""
    execute = node.execute.__func__

    @functools.wraps(execute)
    def spoken(cls, *args, **inputs):
        try:
            return execute(cls, *args, **inputs)
        except InputError as error:
            error.args = tuple(in_comfyui(part) if isinstance(part, str) else part for part in error.args)
            raise

    node.execute = classmethod(spoken)


def show_plain_errors():
    """Have ComfyUI call the errors InputError, and its log say them in one line.

    ComfyUI shows an error's class with its module, here one named by the folder that the pack is in, but for built-in
    ones. And it logs a traceback of each error after its message, which does not help a person who wired the wrong
    thing.
    """
    InputError.__module__ = "builtins"
    root = logging.getLogger()
    if _is_news not in root.filters:
        root.addFilter(_is_news)


def _is_news(record):
    """False for the traceback of an InputError that is being handled."""
    return not (isinstance(sys.exc_info()[1], InputError) and str(record.msg).startswith("Traceback"))
