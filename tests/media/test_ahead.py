"""Stages beside each other: order, errors, Cancel, memory that stays, threads that end."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest
import torch

from dicetalk.errors import InputError
from dicetalk.media.ahead import Unwanted, check, checked_between_layers, read_ahead
from dicetalk.media.frame_rate import double_frame_rate
from dicetalk.media.pixels import as_pixels
from dicetalk.media.stream import FRAMES_AHEAD, video_frames
from dicetalk.media.video import write_video


class Cancel(BaseException):
    """As ComfyUI's is in some versions, or KeyboardInterrupt."""


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "read_ahead"]


def test_items_come_in_order_from_another_thread():
    threads = set()

    def numbers():
        for number in range(200):
            threads.add(threading.current_thread())
            yield number

    assert list(read_ahead(numbers(), 3)) == list(range(200))
    assert list(read_ahead(iter([]))) == []
    assert threading.current_thread() not in threads and len(threads) == 1


def test_no_more_is_made_ahead_than_asked_for():
    made = []
    with closing(read_ahead((made.append(number) or number for number in range(100)), 3)) as items:
        next(items)
        time.sleep(0.3)
        assert len(made) == 5, "one taken, three that wait, one that waits to wait"


@pytest.mark.parametrize("error", [InputError("a fault"), Cancel(), StopIteration])
def test_an_exception_of_the_iterator_reaches_the_caller(error):
    def failing():
        yield 1
        raise error

    with pytest.raises((InputError, Cancel, RuntimeError)):
        list(read_ahead(failing()))


def test_an_exception_does_not_wait_for_items_that_wait():
    taken = threading.Event()

    def failing():
        yield from range(5)
        taken.wait()
        raise Cancel

    items = read_ahead(failing(), 10)
    next(items)
    taken.set()
    time.sleep(0.3)
    with pytest.raises(Cancel):
        next(items)


def test_a_caller_that_stops_ends_the_work_between_layers():
    network, layers = torch.nn.Sequential(*[torch.nn.Identity() for _ in range(200)]), []
    for layer in network:
        layer.register_forward_hook(lambda *_: (layers.append(1), time.sleep(0.01)) and None)
    closed = []

    def decoded():
        try:
            yield 0
            with checked_between_layers(network):
                yield network(torch.zeros(1))
        finally:
            closed.append(True)

    items = read_ahead(decoded())
    next(items)
    time.sleep(0.1)
    items.close()
    assert closed and 0 < len(layers) < 200 and not any(layer._forward_pre_hooks for layer in network)


def test_check_does_nothing_in_other_threads():
    check()
    with pytest.raises(Unwanted):
        threading.current_thread().stopped = threading.Event()
        threading.current_thread().stopped.set()
        try:
            check()
        finally:
            del threading.current_thread().stopped


def chunks(count=3, side=32, fail_after=None):
    random = torch.Generator().manual_seed(0)
    for number in range(count):
        if number == fail_after:
            raise InputError("decoding failed")
        yield torch.rand(4, 3, side, side, generator=random)


@pytest.mark.parametrize("double", [False, True])
def test_frames_are_those_of_one_stage_after_the_other(double):
    plain = [as_pixels(frame, 8) for chunk in chunks() for frame in chunk.permute(0, 2, 3, 1).numpy()]
    expected = list(double_frame_rate(plain)) if double else plain
    frames = list(video_frames(chunks(), double))
    assert len(frames) == len(expected) and all(map(np.array_equal, frames, expected))


@pytest.mark.parametrize("double", [False, True])
def test_an_error_while_decoding_leaves_no_file(tmp_path, double):
    with pytest.raises(InputError, match="decoding failed"), closing(video_frames(chunks(9, 32, 5), double)) as frames:
        write_video(tmp_path / "out.mp4", frames, 12.5)
    assert not list(tmp_path.iterdir())


def test_an_error_while_doubling_leaves_no_file(tmp_path):
    with pytest.raises(InputError, match="too small"), closing(video_frames(chunks(9, 16), True)) as frames:
        write_video(tmp_path / "out.mp4", frames, 25)
    assert not list(tmp_path.iterdir())


def test_an_error_or_cancel_while_encoding_ends_the_other_stages(tmp_path):
    def cancelled(frames):
        for number, frame in enumerate(frames):
            if number == 3:
                raise Cancel
            yield frame

    with pytest.raises(Cancel), closing(video_frames(chunks(1000), True)) as frames:
        write_video(tmp_path / "out.mp4", cancelled(frames), 25)
    assert not list(tmp_path.iterdir())


def test_no_more_frames_are_held_for_a_longer_clip():
    made, taken, most = 0, 0, 0

    def counted():
        nonlocal made
        for chunk in chunks(100):
            made += len(chunk)
            yield chunk

    for _ in video_frames(counted()):
        taken += 1
        most = max(most, made - taken)
    assert taken == 400 and most <= FRAMES_AHEAD + 2 * 4 + 1
