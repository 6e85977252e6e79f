"""What a long job is doing, said in ComfyUI's log and on the node that works."""

import logging
import sys
import time
from contextlib import contextmanager
from contextvars import ContextVar

from comfy_execution.utils import get_executing_context

_CLIP: ContextVar[str] = ContextVar("clip", default="")


@contextmanager
def clip_of_list(clip):
    """Have `say` begin with which clip of a list it is; `clip` is (its number from 1, how many there are), or None."""
    token = _CLIP.set(f"clip {clip[0]} of {clip[1]}: " if clip else "")
    try:
        yield
    finally:
        _CLIP.reset(token)


def say(text, in_log=True):
    """Show a line on the node that is being executed, and put it into the log."""
    text = _CLIP.get() + text
    if in_log:
        logging.info("DICE-Talk: %s", text)
    module = sys.modules.get("server")  # ComfyUI's, where it serves
    context, server = get_executing_context(), getattr(getattr(module, "PromptServer", None), "instance", None)
    if context is not None and server is not None:
        server.send_progress_text(text, context.node_id)


class TimeLeft:
    """How long a job may still take, by what it took so far."""

    def __init__(self, clock=time.monotonic):
        self._clock, self._start = clock, clock()

    def after(self, share):
        """ "about 2 min left" when this share (0 to 1) of the job is done."""
        if share >= 1:
            return "done"
        seconds = (self._clock() - self._start) * (1 - share) / share
        return f"about {seconds:.0f} s left" if seconds < 90 else f"about {seconds / 60:.0f} min left"
