import csv

import numpy as np
import pytest
import torch
from emotions import make_priors

from dicetalk.emotion.drawing import PAPER, contrast
from dicetalk.emotion.heat_map import _colour, correlation_image, numbers_text, usage_image
from dicetalk.emotion.mixing import mix
from dicetalk.emotion.options import BankOptions
from dicetalk.emotion.timeline import EmotionTimeline, TimelineKey
from dicetalk.errors import InputError
from dicetalk.model.bank import bank_vectors, correlation, usage
from dicetalk.model.emotion import EmotionModel

PRIORS = make_priors()
EMOTIONS = list(PRIORS.values())
HAPPY, SAD = PRIORS["happy"], PRIORS["sad"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EmotionModel(tokens=4, width=32, hidden=24, codes=16, code_dim=20).eval().requires_grad_(False)


def test_usage_per_emotion_and_head(model):
    nearest = HAPPY.with_bank(BankOptions("nearest"))
    shares = usage(model, [HAPPY, nearest, SAD, mix([HAPPY, SAD], [1, 3], "tokens")])
    assert shares.shape == (4, 8, 16) and np.allclose(shares.sum(-1), 1, atol=1e-5)
    assert np.allclose(shares[0], model.usage(HAPPY.mean[None])[0], atol=1e-6)
    code = int(model.nearest_code(HAPPY.mean[None]))
    assert np.allclose(shares[1, :, code], 1)
    assert np.allclose(shares[3], 0.25 * shares[0] + 0.75 * shares[2], atol=1e-6)


def test_vectors_of_each_space(model):
    assert bank_vectors(model, EMOTIONS, "usage").shape == (8, 8 * 16)
    tokens = bank_vectors(model, EMOTIONS, "tokens")
    assert np.allclose(tokens[3], model.tokens(EMOTIONS[3].mean[None]).flatten(), atol=1e-5)
    assert np.array_equal(bank_vectors(None, EMOTIONS, "embedding")[4], HAPPY.mean.numpy())
    with pytest.raises(InputError, match="usage, tokens, embedding"):
        bank_vectors(model, EMOTIONS, "codes")
    with pytest.raises(InputError, match="timeline"):
        usage(model, [EmotionTimeline((TimelineKey(0, HAPPY),))])
    with pytest.raises(InputError, match="one or more"):
        bank_vectors(model, [])


def test_correlation():
    vectors = bank_vectors(None, EMOTIONS, "embedding")
    matrix = correlation(vectors)
    assert np.allclose(matrix, np.corrcoef(vectors), atol=1e-6) and (matrix > 0.85).all()
    origin = PRIORS["neutral"].mean.numpy()
    residual = correlation(vectors, origin)
    assert np.allclose(residual[4, 6], np.corrcoef(vectors[4] - origin, vectors[6] - origin)[0, 1], atol=1e-6)
    neutral = list(PRIORS).index("neutral")
    assert np.isnan(residual[neutral]).all() and np.isnan(residual[:, neutral]).all()
    assert np.isnan(np.delete(np.delete(residual, neutral, 0), neutral, 1)).sum() == 0


def test_numbers_as_csv(model):
    shares = usage(model, [HAPPY, PRIORS["neutral"]])
    matrix = correlation(shares.reshape(2, -1), shares[1].reshape(-1))
    used, correlated = numbers_text(shares, matrix, ["(happy 0.7, sad)", 'say "neutral"']).split("\n\n")
    titles, *rows = csv.reader(used.splitlines())
    assert titles == ["usage", "head", *(f"code {code}" for code in range(16))]
    assert [row[:2] for row in rows[:3]] == [["(happy 0.7, sad)", each] for each in ("average", "0", "1")]
    assert len(rows) == 2 * (1 + 8) and rows[9][0] == 'say "neutral"'
    read = np.array([row[2:] for row in rows], float).reshape(2, 9, 16)
    assert np.allclose(read[:, 1:], shares, rtol=1e-4) and np.allclose(read[:, 0], shares.mean(1), rtol=1e-4)
    assert list(csv.reader(correlated.splitlines())) == [
        ["correlation", "(happy 0.7, sad)", 'say "neutral"'],
        ["(happy 0.7, sad)", "1", ""],
        ['say "neutral"', "", ""],
    ]


def pixels(image):
    return np.asarray(image).astype(int)


def colours(image):
    return {tuple(colour) for colour in pixels(image).reshape(-1, 3)}


def test_correlation_image():
    names = list(PRIORS)
    matrix = correlation(bank_vectors(None, EMOTIONS, "embedding"), PRIORS["neutral"].mean.numpy())
    image = correlation_image(matrix, names, "Correlation")
    assert image.mode == "RGB" and 500 < image.width < 1200 and 400 < image.height < 1200
    assert {(240, 105, 85), (62, 62, 62), PAPER} <= colours(image)  # full correlation, none, background
    opposite = correlation_image(np.array([[1.0, -1.0], [-1.0, 1.0]]), ["a", "b"])
    reds = (pixels(opposite) == (240, 105, 85)).all(-1).sum()
    blues = (pixels(opposite) == (80, 165, 240)).all(-1).sum()
    assert reds > 2000 and abs(reds - blues) < 0.2 * reds
    for changed in (correlation_image(matrix, names[::-1], "Correlation"), correlation_image(matrix, names, "Other")):
        assert changed.size == image.size and (pixels(changed) != pixels(image)).any()
    numbered = correlation_image(np.where(matrix < 1, matrix * 0.99, matrix), names, "Correlation")
    assert (pixels(numbered) != pixels(image)).any()


def test_numbers_stand_out_from_their_cells():
    """The ink is that of white and black which stands out more."""
    for value in (float("nan"), *np.linspace(-1, 1, 41)):
        colour = _colour(value, (-1.0, 0.0, 1.0))
        assert max(contrast(colour, ink) for ink in ((255, 255, 255), (0, 0, 0))) >= 4.5
    for value, ink in ((1.0, 0), (0.0, 255)):
        cell = pixels(correlation_image(np.full((1, 1), value), ["a"]))
        assert (abs(cell - ink) < 12).all(-1).any()


def test_long_and_foreign_labels_fit():
    short = correlation_image(np.eye(2), ["a", "b"])
    long = correlation_image(np.eye(2), ["(sad 0.7 + fear 0.3):1.2", "Größe" * 30])
    assert short.width < long.width < 600 and short.height < long.height < 600


def test_usage_image(model):
    shares = usage(model, EMOTIONS).mean(1)
    image = usage_image(shares, list(PRIORS), "Usage")
    assert image.mode == "RGB" and image.height > 8 * 26 and image.width > 16 * 14
    even = usage_image(np.full((2, 64), 1 / 64), ["a", "b"])
    assert (62, 62, 62) in colours(even)
    single = np.zeros((1, 64))
    single[0, 5] = 1
    assert (240, 105, 85) in colours(usage_image(single, ["a"]))
