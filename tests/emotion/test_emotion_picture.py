import re

import numpy as np
import pytest
from emotions import make_priors
from project import ROOT

from dicetalk.emotion.drawing import COLOURS, EMPTY, FAINT, INK, PAPER, contrast
from dicetalk.emotion.heat_map import correlation_image, usage_image
from dicetalk.emotion.options import NAMES
from dicetalk.emotion.parsing import parse_emotion
from dicetalk.emotion.picture import bars, emotion_picture, mix_picture, timeline_picture, weights_of_eight
from dicetalk.reading.chart import chart, meter_chart
from dicetalk.reading.clip import Reading

PRIORS = make_priors()


def test_the_page_has_the_colours_of_the_charts():
    text = (ROOT / "web" / "emotion_look.js").read_text(encoding="utf-8")
    page = dict(re.findall(r"^    (\w+): \"(#[0-9a-f]{6})\",$", text, re.MULTILINE))
    assert page == {name: "#" + "".join(f"{part:02x}" for part in colour) for name, colour in COLOURS.items()}


def test_contrast_is_that_of_wcag():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21) == contrast((255, 255, 255), (0, 0, 0))
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)


def test_words_and_emotions_stand_out_from_the_paper():
    assert min(contrast(words, paper) for words in (INK, FAINT) for paper in (PAPER, EMPTY)) >= 4.5
    assert min(contrast(colour, PAPER) for colour in COLOURS.values()) >= 3


@pytest.mark.parametrize(
    "picture",
    [
        emotion_picture(PRIORS["fear"], PRIORS, "fear"),
        timeline_picture(parse_emotion("0s fear; 2s angry", PRIORS), PRIORS, "two"),
        mix_picture(["sad", "fear"], [1, 1], "a mix"),
        correlation_image(np.zeros((2, 2)), ["a", "b"], "none"),
        usage_image(np.full((2, 64), 1 / 64), ["a", "b"], "even"),
        chart(
            Reading(
                None, np.arange(2) + 0.5, {"combined": np.eye(8)[:2]}, {"combined": np.eye(8)[0]}, {"combined": 0.05}
            )
        ),
        meter_chart(np.eye(8)[:2], np.eye(8)[1:3]),
    ],
    ids=["emotion", "timeline", "mix", "correlation", "usage", "clip", "meter"],
)
def test_charts_are_dark_and_do_not_glare(picture):
    pixels = np.asarray(picture)
    assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] == PAPER).all()
    assert (pixels == INK).all(-1).any()
    assert (pixels.min(-1) > 200).mean() < 0.1


def weights(text, priors=PRIORS):
    found, rest = weights_of_eight(parse_emotion(text, PRIORS).mean[None], priors)
    return dict(zip(NAMES, found[0].round(4), strict=True)), rest[0]


def share_of(picture, name):
    """How much of a picture has the colour of an emotion."""
    return (np.asarray(picture) == COLOURS[name]).all(-1).mean()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("neutral", {"neutral": 1}),
        ("happy", {"happy": 1}),
        ("happy:1.3", {"happy": 1.3}),
        ("sad:0.4", {"sad": 0.4, "neutral": 0.6}),
        ("(sad 0.7 + fear 0.3):1.8", {"sad": 1.26, "fear": 0.54}),
        ("tokens(sad + neutral)", {"sad": 0.5, "neutral": 0.5}),
    ],
)
def test_weights_are_those_of_the_text(text, expected):
    found, rest = weights(text)
    assert found == pytest.approx({name: expected.get(name, 0) for name in NAMES}, abs=1e-4)
    assert rest < 1e-4


def test_what_the_eight_do_not_explain_is_told():
    _, rest = weights("sad", {name: PRIORS[name] for name in ("neutral", "happy")})
    assert rest > 0.9
    spread = PRIORS["happy"].with_deviation(np.full(256, 0.1)).varied(0)
    found, rest = weights_of_eight(spread.mean[None], PRIORS)
    assert found[0, NAMES.index("happy")] == pytest.approx(1, abs=0.2) and 0.2 < rest[0] < 0.7


def test_bars_are_as_long_as_the_weights():
    full, half = (emotion_picture(parse_emotion(text, PRIORS), PRIORS, text) for text in ("happy", "happy:0.5"))
    assert share_of(half, "happy") / share_of(full, "happy") == pytest.approx(0.5, abs=0.02)
    assert share_of(full, "sad") == 0 and share_of(half, "neutral") > 0
    assert max(full.size) < 640


def test_mix_shows_its_parts_by_share():
    picture = mix_picture(["sad", "fear:1.5"], [6, 2], "a mix")
    assert share_of(picture, "sad") / share_of(picture, "fear") == pytest.approx(3, abs=0.15)
    assert mix_picture([str(number) for number in range(26)], [1e308] * 26).height < 500


def test_timeline_is_drawn_over_time():
    picture = timeline_picture(parse_emotion("0s neutral; 2s happy; 4s sad step", PRIORS), PRIORS, "three")
    pixels = np.asarray(picture)
    where = {name: np.flatnonzero((pixels == COLOURS[name]).all(-1)[:, :450].any(0)) for name in COLOURS}
    assert where["neutral"].max() < where["sad"].min() and where["happy"].min() < where["neutral"].max()
    assert where["happy"].max() < where["sad"].min() and not len(where["fear"])
    assert max(picture.size) < 640
    assert timeline_picture(parse_emotion("0s happy; 172800s sad", PRIORS), PRIORS, "days").size == picture.size
    assert timeline_picture(parse_emotion("5s angry:2", PRIORS), PRIORS).size == (picture.width, picture.height - 25)


def test_any_label_can_be_drawn():
    assert bars(["Grüße, 你好", "x" * 500], [0.0, 1e-9], "t" * 500).width < 640
