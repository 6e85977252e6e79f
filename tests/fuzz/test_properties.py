"""What holds for all emotion texts, windows, boxes and mixes; the rest of the properties is with each module's tests.

`pytest tests/fuzz --hypothesis-profile=deep` tries a hundred times as many examples, others each time.
"""

import math
import re

import numpy as np
import pytest
import torch
from emotions import make_priors, make_spread
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from dicetalk.emotion.mixing import between, mix, normalized
from dicetalk.emotion.options import NAMES
from dicetalk.emotion.parsing import parse_emotion
from dicetalk.emotion.text import MAX_LENGTH, format_text, parse_text
from dicetalk.emotion.value import Emotion, TokenMix
from dicetalk.errors import InputError
from dicetalk.media.portrait import check_box, face_crop, prepare_portrait, resized_size
from dicetalk.sampling.windows import SHIFT, WINDOW, window_plan, windows

PRIORS = make_priors()
SPREAD = [emotion.with_deviation(make_spread(number)) for number, emotion in enumerate(PRIORS.values())]

# --------------------------------------------------------------------------------------------------- emotion text

TEXTS = [
    "happy",
    '"happy":0.5',
    "(sad 0.7 + fear:1.5 0.3):1.2",
    "tokens(sad + moments(fear 2 + angry))",
    "0s neutral; 1.5s happy:1.2 smooth; 4s (sad + fear) step;",
]
pieces = st.sampled_from(
    [*'0123456789.s:;()+- "\\\n\t', "e9", "1e999", "happy", "smooth", "tokens", "٣", "nan", "\0", "ſ"]
)


@st.composite
def slips(draw):
    """A good text with a few characters put in, left out or exchanged."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 3))
        text = text[:start] + draw(pieces | st.text(max_size=2) | st.just("")) + text[end:]
    return text


@given(slips() | st.text(max_size=60) | st.lists(pieces, max_size=30).map("".join))
def test_a_text_is_read_or_the_error_points_into_it(text):
    try:
        tree = parse_text(text, NAMES)
    except InputError as error:
        message = str(error)
        assert message.isprintable(), message
        where = re.match(r"Emotion text, (?:at the end|at character (\d+), \"(.*?)\"): \S", message, re.DOTALL)
        assert where, message
        if where[1]:
            assert 1 <= int(where[1]) <= len(text)
            assert text[int(where[1]) - 1 :].strip()[:1] in where[2] or not text[int(where[1]) - 1].isprintable()
    else:
        written = format_text(tree)
        assert parse_text(written, NAMES) == tree and format_text(parse_text(written, NAMES)) == written


@given(slips())
def test_a_text_that_is_read_is_an_emotion_or_refused(text):
    try:
        value = parse_emotion(text, PRIORS)
    except InputError:
        return
    assert len(value.digest()) == 64


@given(st.integers(MAX_LENGTH + 1, 10**6), pieces)
def test_a_text_without_end_is_refused_at_once(length, piece):
    with pytest.raises(InputError, match="4096 is the most"):
        parse_text(piece * length, NAMES)


# ----------------------------------------------------------------------------------------------------- window plan

lengths = st.integers(1, 60) | st.integers(1, 2000)


@given(lengths, st.integers(1, 30), st.integers(0, WINDOW - 1), st.integers(0, WINDOW - 1))
def test_every_kept_frame_is_sampled_at_every_step(frames, steps, overlap, shift):
    total = frames + WINDOW
    assume(steps * total <= 4000 * (WINDOW - overlap))
    plan = window_plan(frames, steps, overlap=overlap, shift=shift)
    assert len(plan) == steps
    for row in plan:
        assert set(range(frames)) <= set().union(*row)
        for window in row:
            assert len(set(window)) == WINDOW and all(0 <= frame < total for frame in window)
            assert all((b - a) % total == 1 for a, b in zip(window, window[1:]))


@given(lengths, st.integers(0, 1000), st.integers(0, WINDOW - 1), st.integers(0, WINDOW - 1))
def test_windows_move_by_the_shift_and_come_round(frames, step, overlap, shift):
    total, cycle = frames + WINDOW, WINDOW // math.gcd(WINDOW, shift)
    now, then = (windows(total, each, overlap=overlap, shift=shift) for each in (step, step + cycle))
    assert now == then
    starts = {windows(total, each, overlap=overlap, shift=shift)[0][0] for each in range(cycle)}
    assert len(starts) == cycle, "no step of a cycle repeats another"
    assert len(now) == math.ceil(total / (WINDOW - overlap))


@given(lengths)
def test_a_cycle_of_the_published_shift_puts_the_seam_everywhere_once(frames):
    offsets = [-windows(frames + WINDOW, step)[0][0] % (frames + WINDOW) for step in range(WINDOW)]
    assert sorted(offsets) == list(range(WINDOW)) and math.gcd(SHIFT, WINDOW) == 1


# ------------------------------------------------------------------------------------------------------- geometry

coordinates = st.floats() | st.integers() | st.floats(-50, 150)
sides = st.integers(1, 90)


@given(st.tuples(coordinates, coordinates, coordinates, coordinates), sides, sides)
def test_a_box_is_clipped_or_refused(box, width, height):
    try:
        x1, y1, x2, y2 = clipped = check_box(box, (width, height))
    except InputError as error:
        assert "face box" in str(error)
        return
    assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height and min(x2 - x1, y2 - y1) >= 2
    assert check_box(clipped, (width, height)) == clipped
    assert x1 >= box[0] or x1 == 0
    crop = face_crop(clipped, (width, height))
    assert 0 <= crop[0] < crop[2] <= width and 0 <= crop[1] < crop[3] <= height


@given(
    st.tuples(coordinates, coordinates, coordinates, coordinates),
    sides,
    sides,
    st.booleans(),
    st.floats(0, 3) | st.floats(),
    st.integers(64, 200) | st.integers(-1, 63),
)
def test_a_portrait_is_prepared_or_refused(box, width, height, crop, margin, short_side):
    image = Image.new("RGB", (width, height), "red")
    try:
        prepared = prepare_portrait(image, box, short_side, crop, margin)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert all(side % 64 == 0 for side in prepared.image.size) and abs(min(prepared.image.size) - short_side) <= 32
    assert prepared.face_mask.shape == prepared.image.size[::-1]
    assert 0 <= prepared.face_mask.min() and prepared.face_mask.max() <= 1
    x1, y1, x2, y2 = prepared.crop_box
    assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


@given(
    sides.flatmap(lambda height: sides.map(lambda width: (height, width))).flatmap(
        lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(width=32), fill=st.sampled_from([0.0, 1.0]))
    ),
    st.booleans(),
)
def test_a_mask_is_used_or_refused(mask, crop):
    height, width = mask.shape
    try:
        prepared = prepare_portrait(Image.new("RGB", (width, height)), None, 64, crop, mask=mask)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert 0 <= prepared.face_mask.min() and prepared.face_mask.max() <= 1
    x1, y1, x2, y2 = prepared.face_box
    assert (mask[round(y1) : round(y2), round(x1) : round(x2)] >= 0.5).sum() == (mask >= 0.5).sum()


@given(st.integers(1, 10**7), st.integers(1, 10**7), st.integers(64, 2048))
def test_no_image_asks_for_more_than_a_few_times_its_share(width, height, short_side):
    try:
        size = resized_size(width, height, short_side)
    except InputError:
        assert max(width, height) > 8 * min(width, height)
        return
    assert max(size) <= 8 * short_side + 64


# --------------------------------------------------------------------------------------------------------- mixing

methods = st.sampled_from(["barycentre", "moments", "tokens"])
parts = st.lists(st.tuples(st.sampled_from(SPREAD), st.floats(0, allow_infinity=False)), min_size=1, max_size=8)


@given(parts, methods, st.randoms(use_true_random=False))
def test_a_mix_stays_in_bounds_whatever_the_order(pairs, method, random):
    assume(any(weight for _, weight in pairs))
    emotions, weights = zip(*pairs)
    mixed = mix(emotions, weights, method)
    shuffled = random.sample(pairs, len(pairs))
    assert mix(*zip(*shuffled), method) == mixed
    assert mix([mixed, mixed], None, method) == mixed == mix([mixed], [3.0], method)
    means = torch.stack([emotion.mean for emotion in emotions])
    assert (mixed.mean >= means.amin(0) - 1e-5).all() and (mixed.mean <= means.amax(0) + 1e-5).all()
    if method != "tokens" or isinstance(mixed, Emotion):
        assert mixed.deviation.isfinite().all() and (mixed.deviation >= 0).all()
        spread = torch.stack([emotion.deviation for emotion in emotions])
        most = (
            spread.amax(0)
            if method == "barycentre"
            else (spread.amax(0) ** 2 + (means.amax(0) - means.amin(0)) ** 2) ** 0.5
        )
        assert (mixed.deviation <= most + 1e-4).all()


@given(st.lists(st.floats(), max_size=8))
def test_weights_are_shares_or_refused(weights):
    try:
        shares = normalized(weights)
    except InputError:
        assert not weights or not any(weights) or any(not 0 <= weight < math.inf for weight in weights)
        return
    assert all(0 <= share <= 1 for share in shares) and math.isclose(math.fsum(shares), 1)
    order = sorted(range(len(weights)), key=weights.__getitem__)
    assert all(shares[a] <= shares[b] for a, b in zip(order, order[1:]))


@given(st.sampled_from(SPREAD), st.sampled_from(SPREAD), st.floats(0, 1))
def test_between_two_is_between_them(a, b, share):
    found = between(a, b, share)
    assert not isinstance(found, TokenMix)
    for field in ("mean", "deviation"):
        ends = torch.stack([getattr(a, field), getattr(b, field)])
        assert (getattr(found, field) >= ends.amin(0) - 1e-5).all() and (
            getattr(found, field) <= ends.amax(0) + 1e-5
        ).all()
    assert between(a, b, 0) is a and between(a, a, share) is a
