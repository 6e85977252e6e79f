import subprocess
import sys

import pytest
import torch
from emotions import make_priors
from hypothesis import given, settings
from hypothesis import strategies as st
from project import ROOT

from dicetalk.emotion.files import save_emotion
from dicetalk.emotion.mixing import mix
from dicetalk.emotion.options import NAMES, BankOptions
from dicetalk.emotion.parsing import parse_emotion, resolve, to_text
from dicetalk.emotion.text import Key, Mixed, Named, Timed, format_text, parse_text, read_argument
from dicetalk.emotion.timeline import EmotionTimeline
from dicetalk.emotion.value import TokenMix
from dicetalk.errors import InputError

PRIORS = make_priors()
HAPPY, SAD, FEAR, NEUTRAL = (PRIORS[name] for name in ("happy", "sad", "fear", "neutral"))


def test_the_tree_of_a_text():
    text = " 0s neutral ;1.5 s happy : 1.2 smooth; 4s tokens ( sad .7+fear 3e-1 ):2 step ; "
    assert parse_text(text, NAMES) == Timed(
        (
            Key(0.0, Named("neutral")),
            Key(1.5, Named("happy", 1.2), "smooth"),
            Key(4.0, Mixed(((0.7, Named("sad")), (0.3, Named("fear"))), "tokens", 2.0), "step"),
        )
    )
    assert format_text(parse_text(text)) == "0s neutral; 1.5s happy:1.2 smooth; 4s tokens(sad 0.7 + fear 0.3):2 step"
    assert parse_text(r'"a \"b\" \\":0.5') == Named('a "b" \\', 0.5)
    assert parse_text("Freude-2") == Named("Freude-2")


@pytest.mark.parametrize(
    "text, where, words",
    [
        ("", "at the end", "empty"),
        ("hapy", "at character 1,", "did you mean happy?"),
        ("calm", "at character 1,", "did you mean neutral?"),
        ("HAP", "at character 1,", "did you mean happy?"),
        ("my", "at character 1,", 'did you mean "my smile"?'),
        ("  qqqq", "at character 3,", "known: angry, contempt"),
        ("happy:3", "at character 7,", "from 0 to 2"),
        ("happy:-1", "at character 7,", "from 0 to 2"),
        ("happy:1e999", "at character 7,", "from 0 to 2"),
        ("happy:", "at the end", "number for the intensity"),
        ("happy:nan", "at character 7,", "number for the intensity"),
        ("happy sad", "at character 7,", "put + between"),
        ("happy 70% sad 30%", "at character 11,", "put + between"),
        ("happy 70", "at character 7,", "the intensity must be from 0 to 2"),
        ("happy -1", "at character 7,", "0 or more"),
        ("happy:1.2 0.5", "at character 11,", "has an intensity already"),
        ("happy:0.7, sad:0.3", "at character 1,", "write shares after a space, such as (sad 0.7 + fear 0.3)"),
        ("70% happy + 30% sad", "at character 1,", "write a share after its emotion"),
        ("happy (strong)", "at character 1,", "method of a mix"),
        ("happy / sad", "at character 7,", "nothing more"),
        ("0.8 0.3", "at character 5,", "expected s"),
        ("0s happy; 00:01:02:12 sad", "at character 11,", "a time has no frames"),
        ("{happy: 0.7}", "at character 1,", "name of an emotion"),
        ("0:02 sad; 0:01 happy", "at character 11,", "must increase"),
        ("99:00:00 sad", "at character 1,", "time must be from 0 to 172800"),
        ("happy; sad", "at character 6,", "need a time"),
        ("(sad + ", "at the end", "name of an emotion"),
        ("(sad fear)", "at character 6,", "expected + or )"),
        ("(sad 0 + fear 0)", "at character 1,", "not all be 0"),
        ("(sad -1)", "at character 6,", "0 or more"),
        ("blend(sad + fear)", "at character 1,", "barycentre, moments, tokens"),
        ("1.5 happy", "at character 5,", "expected s"),
        ("1.5sad", "at character 4,", "expected s"),
        ("0s happy; sad", "at character 11,", "expected a time"),
        ("0s happy bounce", "at character 10,", "linear, smooth, step"),
        ("1s happy; 0.5s sad", "at character 11,", "must increase"),
        ("1s happy; 1s sad", "at character 11,", "must increase"),
        ("-1s happy", "at character 1,", "time must be from 0 to 172800"),
        ("0s happy; 172800.1s sad", "at character 11,", "time must be from 0 to 172800"),
        ("0s happy; 1e307s sad", "at character 11,", "time must be from 0 to 172800"),
        ("0s happy; 1e999s sad", "at character 11,", "time must be from 0 to 172800"),
        ("0s happy;;", "at character 10,", "expected a time"),
        ('"happy', "at character 1,", "not closed"),
        ('""', "at character 1,", "must not be empty"),
        ('"a\tb"', "at character 1,", "control characters"),
        ("(" * 40 + "happy", "at character 17,", "nested deeper"),
        ("happy\n\n!", "at character 8,", "nothing more"),
    ],
)
def test_errors_point_at_the_character(text, where, words):
    with pytest.raises(InputError) as caught:
        parse_text(text, [*NAMES, "my smile"])
    message = str(caught.value)
    assert where in message and words in message and "\n" not in message


@pytest.mark.parametrize(
    "written, meant",
    [
        ("Happy", "happy"),
        ("HAPPY:1,3", "happy:1.3"),
        ("happy 0.5", "happy:0.5"),
        ("happy=0.5", "happy:0.5"),
        ("happy: 130%", "happy:1.3"),
        ("happy,", "happy"),
        ("joy", "happy"),
        ("anger", "angry"),
        ("Scared", "fear"),
        ("Sadness + contemptuous", "(sad + contempt)"),
        ("开心", "happy"),
        ("Überraschung", "surprised"),
        ("sad + fear", "(sad + fear)"),
        ("sad 70% + fear 30%", "(sad 0.7 + fear 0.3)"),
        ("sad 0.7, fear 0.3", "(sad 0.7 + fear 0.3)"),
        ("(sad 0,7 , fear 0,3)", "(sad 0.7 + fear 0.3)"),
        ("sad 80% + fear 80%", "(sad 0.8 + fear 0.8)"),
        ("（sad 0.7＋fear 30％）：1.2", "(sad 0.7 + fear 0.3):1.2"),
        ("my smile", '"my smile"'),
        ("My Smile", '"my smile"'),
        ("“my smile”:0.5", '"my smile":0.5'),
        ("'my smile' + sad", '("my smile" + sad)'),
        ("0s neutral\n1.5s happy\n3s sad 0.8 smooth\n", "0s neutral; 1.5s happy; 3s sad:0.8 smooth"),
        ("0s neutral, 1,5s happy 1s sad", None),
        ("0s neutral, 1,5s happy 2s sad,", "0s neutral; 1.5s happy; 2s sad"),
        ("0s：neutral；2S happy Smooth", "0s neutral; 2s happy smooth"),
        ("0:00 neutral; 1:02.5 happy", "0s neutral; 62.5s happy"),
        ("00:00:00,000: neutral\n00:00:03,500: happy + sad", "0s neutral; 3.5s (happy + sad)"),
        ("0 sec neutral; 500ms happy; 2 seconds sad", "0s neutral; 0.5s happy; 2s sad"),
    ],
)
def test_what_people_write_is_read_as_it_is_meant(written, meant):
    names = [*NAMES, "my smile"]
    if meant is None:
        with pytest.raises(InputError, match="must increase"):
            parse_text(written, names)
    else:
        assert format_text(parse_text(written, names)) == meant
        parse_text(written)  # where names are not known yet


def test_a_name_is_the_nearest_one_that_is_there():
    assert parse_text("joy", [*NAMES, "joy"]) == Named("joy")
    assert parse_text("Smile", ["smile", "happy"]) == Named("smile")
    with pytest.raises(InputError, match="no emotion SMILE"):
        parse_text("SMILE", ["smile", "Smile"])
    with pytest.raises(InputError, match="no emotion joy"):
        parse_text("joy", ["sad"])


def test_other_wrong_input():
    with pytest.raises(InputError, match="4096"):
        parse_text("happy " * 1000)
    with pytest.raises(InputError, match="must be text"):
        parse_text(1.3)


names = st.sampled_from(NAMES) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(str.isprintable)
positive = st.floats(0, 1e300)
moods = st.recursive(
    st.builds(Named, names, st.floats(0, 2)),
    lambda inner: st.builds(
        Mixed,
        st.lists(st.tuples(positive, inner), min_size=1, max_size=3)
        .filter(lambda parts: any(weight for weight, _ in parts))
        .map(tuple),
        st.sampled_from(["barycentre", "moments", "tokens"]),
        st.floats(0, 2),
    ),
    max_leaves=6,
)
timelines = st.lists(
    st.builds(Key, st.floats(0, 172_800), moods, st.sampled_from(["linear", "smooth", "step"])),
    min_size=1,
    max_size=4,
    unique_by=lambda key: key.time,
).map(lambda keys: Timed(tuple(sorted(keys, key=lambda key: key.time))))


@settings(max_examples=200, deadline=None)
@given(moods | timelines)
def test_a_tree_written_reads_back(tree):
    text = format_text(tree)
    if len(text) <= 4096:
        assert parse_text(text) == tree


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30) | st.text('0123456789.s:;()+ "\\happysad\nlinearsmoothtokens-e', max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        tree = parse_text(text, NAMES)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert parse_text(format_text(tree), NAMES) == tree


def test_what_a_text_means():
    assert parse_emotion("happy", PRIORS) == HAPPY and parse_emotion("happy:1", PRIORS) == HAPPY
    assert parse_emotion("happy:1.3", PRIORS) == HAPPY.with_intensity(NEUTRAL, 1.3)
    assert parse_emotion("(sad 0.7 + fear 0.3)", PRIORS) == mix([SAD, FEAR], [7, 3])
    assert parse_emotion("(happy)", PRIORS) == HAPPY
    nested = parse_emotion("moments(sad:0.5 + (sad + fear) 3):1.2", PRIORS)
    inner = mix([SAD, FEAR])
    assert nested == mix([SAD.with_intensity(NEUTRAL, 0.5), inner], [1, 3], "moments").with_intensity(NEUTRAL, 1.2)
    tokens = parse_emotion("tokens(sad + fear)", PRIORS)
    assert isinstance(tokens, TokenMix) and tokens == mix([SAD, FEAR], method="tokens")
    line = parse_emotion("0s neutral; 1.5s happy:1.2 smooth", PRIORS)
    assert isinstance(line, EmotionTimeline)
    assert [(key.time, key.easing, key.emotion.name) for key in line.keys] == [
        (0, "linear", "neutral"),
        (1.5, "smooth", "happy:1.2"),
    ]
    assert parse_emotion("0s happy", PRIORS).at(3) == HAPPY


def test_saved_emotions_by_name():
    line = parse_emotion("0s sad; 1s happy", PRIORS)
    known = {**PRIORS, "my smile": HAPPY.with_bank(BankOptions("nearest")), "rise": line}
    assert parse_emotion('"my smile"', known).bank.mode == "nearest"
    assert parse_emotion("rise:0.5", known) == line.with_intensity(NEUTRAL, 0.5)
    with pytest.raises(InputError, match="at character 4, .*cannot be placed in another"):
        parse_emotion("0s rise", known)
    with pytest.raises(InputError, match="at character 1, .*timeline"):
        parse_emotion("(rise + sad)", known)
    with pytest.raises(InputError, match="at character 1, .*bank options"):
        parse_emotion('("my smile" + sad)', known)
    with pytest.raises(InputError, match="neutral"):
        parse_emotion("happy:0.5", {"happy": HAPPY})
    with pytest.raises(InputError, match="no emotion gloom"):
        resolve(parse_text("gloom"), PRIORS)


known_moods = st.recursive(
    st.builds(Named, st.sampled_from(NAMES), st.floats(0, 2)),
    lambda inner: st.builds(
        Mixed,
        st.lists(st.tuples(st.floats(0.01, 100), inner), min_size=1, max_size=3).map(tuple),
        st.just("barycentre"),
        st.floats(0, 2),
    ),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None)
@given(known_moods | st.builds(lambda a, b: Timed((Key(0.0, a), Key(1.5, b, "smooth"))), known_moods, known_moods))
def test_a_value_written_reads_back(tree):
    value = resolve(tree, PRIORS)
    assert parse_emotion(to_text(value), PRIORS) == value


def test_values_without_a_text_are_written_by_their_names():
    assert to_text(HAPPY.renamed("")) == "unnamed"
    assert to_text(HAPPY.renamed("two words")) == '"two words"'
    assert to_text(mix([HAPPY, SAD], [1, 3], "tokens")) in (
        "tokens(happy 0.25 + sad 0.75)",
        "tokens(sad 0.75 + happy 0.25)",
    )


def test_an_argument_is_a_text_or_a_file(tmp_path):
    path = tmp_path / "smile.safetensors"
    save_emotion(HAPPY, path)
    assert resolve(read_argument(path, NAMES), PRIORS) == HAPPY
    assert resolve(read_argument("happy:0.5", NAMES), PRIORS) == HAPPY.with_intensity(NEUTRAL, 0.5)
    with pytest.raises(InputError, match="no such file"):
        read_argument(tmp_path / "other.safetensors", NAMES)
    with pytest.raises(InputError, match="did you mean"):
        read_argument("hapy", NAMES)


def test_checking_a_text_needs_no_torch():
    program = "import sys; from dicetalk.emotion import parse_text; parse_text('sad'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_intensity_zero_is_neutral_exactly():
    assert torch.equal(parse_emotion("(sad + fear):0", PRIORS).mean, NEUTRAL.mean)
