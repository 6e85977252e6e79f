import numpy as np
import pytest
from PIL import ImageChops

from dicetalk.emotion.drawing import COLOURS
from dicetalk.emotion.options import NAMES
from dicetalk.reading.chart import _clock, _how_sure, _tick, chart
from dicetalk.reading.clip import Reading


def reading(tracks, step=0.5):
    steps = len(next(iter(tracks.values())))
    weights = {cue: np.nanmean(track, axis=0) for cue, track in tracks.items()}
    return Reading(None, step * (np.arange(steps) + 0.5), tracks, weights, dict.fromkeys(tracks, 0.5))


def of(name):
    return np.eye(8)[NAMES.index(name)]


def share_of(image, colour):
    return (np.asarray(image) == colour).all(-1).mean()


def test_every_emotion_has_a_colour_of_its_own():
    assert set(COLOURS) == set(NAMES) and len(set(COLOURS.values())) == len(NAMES)


def test_areas_are_as_large_as_the_weights():
    track = np.concatenate([np.tile(of("happy"), (30, 1)), np.tile((of("sad") + of("neutral")) / 2, (30, 1))])
    image = chart(reading({"combined": track}))
    happy, sad, neutral = (share_of(image, COLOURS[name]) for name in ("happy", "sad", "neutral"))
    assert happy == pytest.approx(2 * sad, rel=0.05) and sad == pytest.approx(neutral, rel=0.05)
    assert share_of(image, COLOURS["fear"]) < 0.002, "in the legend only"
    pixels = (np.asarray(image) == COLOURS["happy"]).all(-1)
    left = pixels[:, : image.width // 2]
    assert left.sum() > 0.9 * pixels.sum(), "the first half is on the left"
    plot = np.asarray(image)[50:]  # below the title, whose letters have grey edges
    high, low = ((plot == COLOURS[name]).all(-1).any(1).nonzero()[0].min() for name in ("sad", "neutral"))
    assert high < low, "neutral is at the bottom"


def test_a_cue_without_opinion_is_blank():
    track = np.tile(of("happy"), (10, 1))
    gap = track.copy()
    gap[5:] = np.nan
    full, half = chart(reading({"combined": track})), chart(reading({"face": gap, "combined": track}))
    assert half.height > full.height and half.width == full.width
    halves, fulls = share_of(half, COLOURS["happy"]) * half.height, share_of(full, COLOURS["happy"]) * full.height
    assert halves == pytest.approx(1.5 * fulls, rel=0.05)


def test_one_step_and_hours_fit():
    one, many = (chart(reading({"combined": np.tile(of("fear"), (steps, 1))}), "x") for steps in (1, 20000))
    assert one.size == many.size and share_of(one, COLOURS["fear"]) == pytest.approx(
        share_of(many, COLOURS["fear"]), rel=0.01
    )


def test_steps_stand_at_their_times():
    track = np.concatenate([np.tile(of("happy"), (1, 1)), np.tile(of("fear"), (8, 1))])
    uneven = reading({"combined": track})
    uneven.times[:] = [2.0, *(6.0 + 0.5 * np.arange(8))]  # the first is the nearest up to 4 s of 9.75 s
    pixels = (np.asarray(chart(uneven)) == COLOURS["happy"]).all(-1).sum(1).max()
    assert pixels == pytest.approx(720 * 4 / 9.75, rel=0.1)


def test_the_title_names_the_clip_and_long_names_are_cut():
    track = {"combined": np.tile(of("fear"), (4, 1))}
    first, second = chart(reading(track), "one.mp4"), chart(reading(track), "two.mp4")
    box = ImageChops.difference(first, second).getbbox()
    assert box and box[3] < 50
    assert chart(reading(track), "long " * 100).size == first.size


def test_times_are_round():
    assert [_tick(end) for end in (0.5, 3, 30, 200, 3600, 36000)] == [0.1, 0.5, 5, 30, 600, 7200]
    assert [_clock(90, end) for end in (100, 200, 4000)] == ["90 s", "1:30", "0:01:30"]


def test_what_is_hardly_sure_is_drawn_as_a_guess():
    tracks = {"combined": np.tile(of("happy"), (10, 1))}
    sure, unsure = reading(tracks), reading(tracks)
    unsure.sureness["combined"] = 0.01
    assert share_of(chart(sure), COLOURS["happy"]) > 0.1
    assert share_of(chart(unsure), COLOURS["happy"]) < 0.002, "in the legend only"
    assert _how_sure(0.01) == "a guess (1%)" and _how_sure(0.4) == "40% sure"
