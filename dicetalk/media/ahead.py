"""Stages of a stream beside each other: a thread works on what comes next while the caller uses what came before."""

import contextlib
import queue
import threading

_CHECK = 0.1  # seconds after which a thread that waits looks whether anyone still wants its work


class Unwanted(BaseException):
    """Ends the work of a thread whose results nobody takes any more; never reaches the caller."""


class _Thread(threading.Thread):
    stopped: threading.Event


def read_ahead(iterator, size=1):
    """What `iterator` yields, in order, made in a thread of its own, at most `size` items ahead.

    An exception of the iterator, Cancel included, is raised as soon as it is known; items that wait are dropped then.
    When the caller stops early, the thread ends at the next `check` or item, is waited for, and closes the iterator if
    it is a generator.

    Args:
        iterator: used by the thread alone.
        size: items that wait at most, 1 or more; one more is in the making.
    """
    waiting, failure = queue.Queue(size), []
    end = object()

    def put(item):
        while not thread.stopped.is_set():
            with contextlib.suppress(queue.Full):
                return waiting.put(item, timeout=_CHECK)

    def work():
        try:
            with contextlib.closing(iterator) if hasattr(iterator, "close") else contextlib.nullcontext():
                for item in iterator:
                    put(item)
                    del item  # not kept while the next one is made
                    if thread.stopped.is_set():
                        return
        except BaseException as error:  # Cancel need not be an Exception
            failure.append(error)
        put(end)

    thread = _Thread(target=work, name="read_ahead", daemon=True)
    thread.stopped = threading.Event()
    thread.start()
    try:
        while True:
            try:
                item = waiting.get(timeout=_CHECK)
            except queue.Empty:
                item = waiting
            if failure:
                raise failure[0]
            if item is end:
                return
            if item is not waiting:
                yield item
            del item
    finally:
        thread.stopped.set()
        thread.join()
        failure.clear()  # with the frames that its traceback holds


def check(*_) -> None:
    """Raise `Unwanted` in a thread of `read_ahead` whose caller has stopped; elsewhere do nothing."""
    stopped = getattr(threading.current_thread(), "stopped", None)
    if stopped is not None and stopped.is_set():
        raise Unwanted


@contextlib.contextmanager
def checked_between_layers(network, check=check):
    """Call `check` before each layer of a network, so that Cancel need not wait for the whole."""
    hooks = [module.register_forward_pre_hook(lambda module, inputs: check()) for module in network.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
