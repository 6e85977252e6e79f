"""A video in the portrait's place: its pictures at the model's frame rate, one face, one crop."""

import numpy as np
import pytest
from PIL import Image

from dicetalk.errors import InputError
from dicetalk.media import moving
from dicetalk.media.moving import SPARE, fitted, prepare_video, steady


def film(count, fps, start=0.0, size=(40, 60)):
    """(seconds, picture) of a clip whose picture number n is all n."""
    return [(start + number / fps, np.full((*size, 3), number, np.uint8)) for number in range(count)]


def numbers(pictures):
    return [int(picture[0, 0, 0]) for picture in pictures]


@pytest.mark.parametrize(
    "timed, shown",
    [
        (film(5, 12.5), [0, 1, 2, 3, 4]),
        (film(6, 25), [0, 2, 4]),
        (film(7, 25), [0, 2, 4, 6]),
        (film(8, 30), [0, 2, 4, 7]),
        (film(3, 5), [0, 0, 0, 1, 1, 2, 2, 2]),  # each is shown for 0.2 s: until 0.6 s, which is 7.5 frames
        (film(3, 12.5, start=0.16), [0, 0, 0, 1, 2]),  # before the first one comes, it is shown
        (film(1, 25), [0]),
        ([], []),
    ],
)
def test_what_is_shown_every_80_ms(timed, shown):
    assert numbers(steady(iter(timed))) == shown


def test_twice_the_rate_gives_what_is_between():
    assert numbers(steady(film(4, 25), 25.0)) == [0, 1, 2, 3]


def test_frames_are_cut_and_resized_alike_and_read_no_further_than_asked():
    random = np.random.default_rng(0)
    pictures = [(number / 12.5, random.integers(0, 255, (100, 160, 3), np.uint8)) for number in range(6)]
    prepared = prepare_video(lambda: iter(pictures), 4, (60, 20, 110, 80), 64, crop=True, expand_ratio=0.2)
    assert prepared.frames.shape == (4, 64, 64, 3) and prepared.frames.dtype == np.uint8
    for frame, (_, picture) in zip(prepared.frames, pictures):
        part = Image.fromarray(picture).crop(prepared.crop_box).resize((64, 64), Image.Resampling.LANCZOS)
        assert np.array_equal(frame, np.asarray(part))
    assert np.array_equal(prepared.frames[0], np.asarray(prepared.image))


def test_the_mask_and_the_crop_hold_the_face_wherever_it_goes(monkeypatch):
    pictures = film(5, 12.5, size=(200, 300))
    places = {1: (60.0, 50.0, 110.0, 110.0), 2: (0.0, 0.0, 20.0, 20.0), 3: (70.0, 40.0, 120.0, 100.0), 4: None}

    def found(image):  # one face that moves, another one far from it, and a picture in which none is found
        number = image.getpixel((0, 0))[0]
        return [box for box in (places[number], (250.0, 0.0, 290.0, 40.0)) if box]

    monkeypatch.setattr(moving, "find_faces", found)
    monkeypatch.setattr(moving, "_SEARCH_EVERY", 1)
    prepared = prepare_video(lambda: iter(pictures), 9, (50, 50, 100, 110), 64, crop=True, expand_ratio=0.1)
    assert prepared.face_box == (50, 40, 120, 110)
    left, top, right, bottom = prepared.crop_box
    assert left <= 50 and top <= 40 and right >= 120 and bottom >= 110
    assert len(prepared.frames) == 5


def test_what_cannot_be_used_is_said():
    with pytest.raises(InputError, match="talk.mp4 holds no pictures in that part"):
        prepare_video(lambda: iter([]), 4, (60, 20, 110, 80), 64, name="talk.mp4")
    changing = [*film(1, 12.5, size=(100, 100)), (0.08, np.zeros((80, 100, 3), np.uint8))]
    with pytest.raises(InputError, match="pictures of video change their size at 0.08 s"):
        prepare_video(lambda: iter(changing), 4, (10, 10, 60, 60), 64)


def test_speech_is_as_long_as_the_video_or_shorter_or_a_little_longer():
    video = np.arange(10)
    assert fitted(video, 4).tolist() == [0, 1, 2, 3]
    assert fitted(video, 10 + SPARE).tolist() == [*range(10), 9, 9, 9]
    with pytest.raises(InputError, match=r"speech lasts 1.12 s and the video 0.80 s: .*--length 0.80"):
        fitted(video, 11 + SPARE)
