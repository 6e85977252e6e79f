import importlib.util
import tracemalloc

import numpy as np
import pytest
import torch
from clips import face, face_clip, film, music, prototype, sound, voice
from emotions import make_priors

from dicetalk.embedder.choice import choose_embedder
from dicetalk.embedder.features import pieces
from dicetalk.emotion.mixing import mix
from dicetalk.emotion.options import NAMES
from dicetalk.emotion.parsing import parse_emotion, to_text
from dicetalk.emotion.timeline import EmotionTimeline
from dicetalk.errors import InputError
from dicetalk.reading.clip import BLENDSHAPES, SAMPLE_RATE, Clip, array_stream
from dicetalk.reading.evidence import (
    RELIABILITY,
    Evidence,
    Steps,
    follow,
    known,
    matching,
    one_cue,
    product_of_experts,
    sureness,
    turns,
)
from dicetalk.reading.voice import AROUSAL, Prosody, is_silent, speech_in, windows

SMILE, FROWN = prototype("6 12", 0.8), prototype("1 4 15", 0.8)
NOTHING = np.full(8, np.nan)


@pytest.fixture(scope="module")
def priors():
    return make_priors()


def shares(seed=0, rows=3):
    return np.random.default_rng(seed).dirichlet(np.ones(8), rows)


def top(reading, cue="combined"):
    return NAMES[reading.weights[cue].argmax()]


# The product of experts


def test_product_of_experts_is_the_normalized_product_of_powers():
    a, b = shares(1), shares(2)
    expected = a**0.8 * b**0.5
    np.testing.assert_allclose(product_of_experts([a, b], [0.8, 0.5]), expected / expected.sum(1, keepdims=True))


def test_an_expert_without_opinion_changes_nothing_and_a_missing_one_neither():
    a, flat = shares(1), np.full((3, 8), 1 / 8)
    np.testing.assert_allclose(product_of_experts([a, flat], [1.0, 0.7]), a)
    missing = np.stack([NOTHING, flat[0], NOTHING])
    np.testing.assert_allclose(product_of_experts([a, missing], [1.0, 0.7]), a)
    both = product_of_experts([np.stack([NOTHING, *a[1:]]), missing], [1.0, 0.7])
    assert np.isnan(both[0]).all() and not np.isnan(both[1:]).any()


def test_experts_that_agree_make_sure_and_the_reliable_one_wins():
    a = np.array([[0.3, *[0.1] * 7]])
    assert product_of_experts([a, a], [1.0, 1.0])[0, 0] > a[0, 0]
    b = np.array([[0.1, 0.3, *[0.1] * 6]])
    assert product_of_experts([a, b], [0.8, 0.3])[0].argmax() == 0
    assert product_of_experts([a, b], [0.3, 0.8])[0].argmax() == 1


def test_experts_on_one_cue_do_not_count_twice():
    a = shares(1)
    together, reliability = one_cue([a, a], [0.8, 0.4])
    np.testing.assert_allclose(together, a)
    np.testing.assert_allclose(reliability, 0.8)
    half = np.stack([a[0], NOTHING, NOTHING])
    together, reliability = one_cue([half, np.stack([*a[:2], NOTHING])], [0.8, 0.4])
    np.testing.assert_allclose(together[:2], a[:2])
    assert np.isnan(together[2]).all() and reliability.tolist() == [0.8, 0.4, 0]


def test_no_expert_is_so_sure_that_it_overrules_all(priors):
    reading = Evidence().read(face_clip((1, prototype("6 12", 1.0))), priors)
    assert 0.002 < reading.weights["face"].min() and reading.weights["face"].max() < 0.98


def test_prosody_is_trusted_least():
    assert RELIABILITY["prosody"] == min(RELIABILITY.values()) and max(RELIABILITY.values()) <= 1


def test_sureness():
    certain = np.eye(8)[:2]
    assert sureness(certain) == pytest.approx(1) and sureness(np.full((2, 8), 1 / 8)) == pytest.approx(0)
    assert sureness(np.stack([certain[0], NOTHING])) == pytest.approx(0.5)


# Steps in time


def test_steps_average_what_falls_into_half_a_second_and_bridge_slow_rates():
    steps = Steps(2)
    steps.add(np.array([0, 0, 1]), np.array([[0.0, 1.0], [1.0, 1.0], [np.nan, np.nan]]))
    steps.add(np.array([4]), np.array([[3.0, 3.0]]))
    steps.add_span(2.5, 3.5, np.array([5.0, 5.0]))
    means = steps.means()
    assert means[0].tolist() == [0.5, 1] and means[4].tolist() == [3, 3] and means[5:].tolist() == [[5, 5], [5, 5]]
    assert np.isnan(means[1:4]).all(), "the face was gone, and nothing was said until the fifth step"


@pytest.mark.parametrize("seconds", [-1.0, 1e9, np.nan, np.inf])
def test_times_that_no_clip_has_are_refused(priors, seconds):
    def stream():
        yield np.array([0.0, seconds]), np.stack([SMILE, SMILE])

    clip = Clip(blendshapes=stream)
    with pytest.raises(InputError, match="A frame of the clip is at"):
        next(pieces(clip, None))
    with np.errstate(invalid="ignore"), pytest.raises(InputError, match="A frame of the clip is at"):
        Evidence().read(clip, priors)


def test_a_timeline_ends_where_the_longest_clip_does(priors):
    times = np.array([172_799.75, 172_800.25])  # the middles of the last steps of a clip of two days
    track = np.eye(8)[:2]
    assert [key.time for key in follow(times, track, priors, "long").keys] == [172_799.75, 172_800]


def test_turns_tell_a_track_by_lines():
    track = np.zeros((11, 8))
    track[:6, 0], track[5:, 0] = np.linspace(0, 1, 6), np.linspace(1, 0, 6)
    track[:, 1] = 1 - track[:, 0]
    times = np.arange(11.0)
    assert turns(times, track, 0.01) == [0, 5, 10]
    assert turns(times, track, 2.0) == [0, 10] and turns(times[:1], track[:1], 0.01) == [0]
    late = np.array([*times[:5], 5, *(times[6:] + 20)])
    assert turns(late[4:7], np.array([[0.0], [0.5], [1.0]]), 0.1) == [0, 1, 2]  # no line across a gap in time


# The emotion


def test_the_emotion_has_the_moments_of_the_priors_under_the_posterior(priors):
    weights = np.array([0.5, 0, 0, 0, 0.3, 0.2, 0, 0])
    emotion = matching(weights, priors, "test")
    means = np.stack([priors[name].mean.numpy() for name in NAMES]).astype(float)
    mean = weights @ means
    np.testing.assert_allclose(emotion.mean, mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(emotion.deviation, np.sqrt(weights @ (means - mean) ** 2), rtol=1e-4, atol=1e-4)
    assert emotion == mix([priors["angry"], priors["happy"], priors["neutral"]], [0.5, 0.3, 0.2], "moments")
    assert to_text(emotion) == "moments(angry 0.5 + happy 0.3 + neutral 0.2)"
    assert parse_emotion(to_text(emotion), priors) == emotion


def test_certainty_gives_the_prior_itself(priors):
    emotion = matching(np.eye(8)[4], priors, "test")
    assert emotion == priors["happy"] and (emotion.name, emotion.provenance) == ("happy", "test")


def test_a_timeline_of_constant_weights_is_the_constant_emotion(priors):
    weights = shares(5, 1)[0]
    times = np.arange(20) * 0.5 + 0.25
    timeline = follow(times, np.tile(weights, (20, 1)), priors, "clip")
    assert len(timeline.keys) == 1 and timeline.at(7.0) == matching(weights, priors, "")


def test_a_timeline_follows_the_weights_and_bridges_gaps(priors):
    track = np.concatenate([np.tile(np.eye(8)[4], (20, 1)), np.full((4, 8), np.nan), np.tile(np.eye(8)[6], (20, 1))])
    times = np.arange(len(track)) * 0.5 + 0.25
    timeline = follow(times, track, priors, "clip")
    assert timeline.at(0) == priors["happy"] and timeline.at(22) == priors["sad"]
    between = (
        (timeline.at(11.0).mean - priors["happy"].mean).norm(),
        (timeline.at(11.0).mean - priors["sad"].mean).norm(),
    )
    assert min(between) > 0.3 * max(between)


# Clips


@pytest.mark.parametrize("emotion, units", [("happy", "6 12"), ("sad", "1 4 15"), ("contempt", "one side")])
def test_a_face_is_read(priors, emotion, units):
    reading = Evidence().read(face_clip((1, face()), (4, prototype(units, 0.8))), priors)
    assert top(reading) == emotion and reading.sureness["combined"] > 0.4
    assert list(reading.tracks) == ["face", "combined"] == list(reading.weights) == list(reading.sureness)
    assert reading.times.tolist() == [0.25 + 0.5 * step for step in range(10)]
    assert reading.text().splitlines()[1].startswith(emotion)
    away = {name: float((reading.emotion.mean - prior.mean).norm()) for name, prior in priors.items()}
    assert min(away, key=away.get) == emotion


def test_a_clip_is_followed(priors):
    clip = face_clip((4, SMILE), (4, face()), (4, FROWN))
    timeline = Evidence().read(clip, priors, timeline=True).emotion
    assert isinstance(timeline, EmotionTimeline)
    for seconds, name in ((1, "happy"), (6, "neutral"), (11, "sad")):
        at = timeline.at(seconds).mean
        assert min(priors, key=lambda each: float((at - priors[each].mean).norm())) == name


def test_one_frame(priors):
    clip = Clip(blendshapes=array_stream(SMILE[None], 25))
    reading = Evidence().read(clip, priors)
    assert top(reading) == "happy" and len(reading.times) == 1
    timeline = Evidence().read(clip, priors, timeline=True).emotion
    assert len(timeline.keys) == 1 and timeline.at(0) == reading.emotion


def test_a_still_holds_as_long_as_the_voice(priors):
    alone = Evidence().read(Clip(blendshapes=array_stream(SMILE[None], 25)), priors)
    clip = Clip(blendshapes=array_stream(SMILE[None], 25), audio=sound(voice(30.0)))
    reading = Evidence().read(clip, priors)
    assert len(reading.times) == 60 and (reading.tracks["face"] == alone.tracks["face"]).all()
    assert top(reading) == "happy" and reading.weights["combined"].max() > 0.85
    assert reading.sureness["face"] == pytest.approx(alone.sureness["face"])
    timeline = Evidence().read(clip, priors, timeline=True).emotion
    for seconds in (1, 15, 29):
        at = timeline.at(seconds).mean
        assert min(priors, key=lambda each: float((at - priors[each].mean).norm())) == "happy"


def test_a_cue_that_is_gone_for_a_while_takes_nothing_from_the_other(priors):
    heard, seen = sound(voice(30.0)), film((3, SMILE))
    glimpse, throughout = np.concatenate([seen, np.full((675, 52), np.nan, np.float32)]), np.tile(seen, (10, 1))
    brief, long = (
        Evidence().read(Clip(blendshapes=array_stream(rows, 25), audio=heard), priors) for rows in (glimpse, throughout)
    )
    np.testing.assert_allclose(brief.weights["combined"], long.weights["combined"], atol=0.05)
    assert top(brief) == "happy" and brief.sureness["combined"] < long.sureness["combined"] / 2
    face, said = brief.weights["face"], brief.weights["voice"]
    expected = product_of_experts([face[None], said[None]], [RELIABILITY["face actions"], RELIABILITY["prosody"]])
    np.testing.assert_allclose(brief.weights["combined"], expected[0])


def test_a_missing_face_leaves_a_gap_and_a_note(priors):
    reading = Evidence().read(face_clip((2, SMILE), (2, None)), priors)
    assert known(reading.tracks["face"]).tolist() == [True] * 4 + [False] * 4
    assert reading.notes == ("No face was seen in 2 of 4 s.",) and top(reading) == "happy"
    whole = Evidence().read(face_clip((2, SMILE)), priors)
    assert reading.sureness["combined"] == pytest.approx(whole.sureness["combined"] / 2, rel=0.1)


@pytest.mark.parametrize(
    "clip, told",
    [
        (Clip(name="empty.mp4"), "Nothing in empty.mp4 shows an emotion."),
        (face_clip((1, None)), "No face was seen."),
        (Clip(audio=sound(np.zeros(40000, np.float32))), "The sound is silent."),
        (face_clip((1, None), audio=sound(np.zeros(9000, np.float32))), "No face was seen. The sound is silent."),
        (Clip(frames=lambda every: iter([])), "takes face landmarks, or a face model"),
        (Clip(blendshapes=lambda: iter([])), "No face was seen."),
    ],
)
def test_no_cue_at_all_is_told(priors, clip, told):
    with pytest.raises(InputError, match="shows an emotion") as caught:
        Evidence().read(clip, priors)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_silence_beside_a_face_changes_nothing(priors):
    alone = Evidence().read(face_clip((4, SMILE)), priors)
    silent = Evidence().read(face_clip((4, SMILE), audio=sound(np.zeros(64000, np.float32))), priors)
    assert silent.emotion == alone.emotion and silent.notes == ("The sound is silent.",)


def test_missing_emotions_are_told(priors):
    with pytest.raises(InputError, match="lacks contempt, sad"):
        Evidence().read(face_clip((1, SMILE)), {k: v for k, v in priors.items() if k not in ("sad", "contempt")})


@pytest.mark.parametrize("module, package", [("librosa", "librosa"), ("silero_vad", "silero-vad")])
def test_without_a_library_the_face_is_read_and_the_remedy_is_told(priors, monkeypatch, module, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    reading = Evidence().read(face_clip((2, SMILE), audio=sound(voice())), priors)
    assert top(reading) == "happy" and list(reading.tracks) == ["face", "combined"]
    assert "install.py" in reading.notes[0]
    with pytest.raises(InputError, match=f"{package} is not installed.*pip install {package}"):
        Evidence().read(Clip(audio=sound(voice())), priors)


def test_hours_take_no_more_memory_than_their_steps(priors):
    hours = 3
    smile = film((40, SMILE), (40, face()))[:1000]

    def blendshapes():
        for number in range(hours * 90):
            yield number * 40 + np.arange(1000) / 25, smile

    def audio():
        for _ in range(hours * 360):
            yield np.zeros(10 * SAMPLE_RATE, np.float32)

    done = []
    clip = Clip(blendshapes=blendshapes, audio=audio, seconds=hours * 3600.0)
    tracemalloc.start()
    try:
        reading = Evidence().read(clip, priors, timeline=True, on_progress=lambda *each: done.append(each))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(reading.times) == hours * 7200 and top(reading) == "happy"
    assert peak < 60e6, "the streams hold 750 MB"
    seconds = [each for each, _ in done]
    assert seconds == sorted(seconds) and done[-1] == (2 * hours * 3600, 2 * hours * 3600)


def test_reading_can_be_cancelled(priors):
    class Cancelled(Exception):
        pass

    def cancel(done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        Evidence().read(face_clip((2, SMILE)), priors, on_progress=cancel)


def test_evidence_is_chosen_by_its_name():
    assert isinstance(choose_embedder("evidence", face_model="here"), Evidence)
    with pytest.raises(InputError, match="goes with the embedder evidence"):
        choose_embedder("other.safetensors", face_model="here")


def test_blendshapes_of_another_shape_are_refused():
    assert len(BLENDSHAPES) == 52 == len(set(BLENDSHAPES))
    with pytest.raises(InputError, match=r"shape \(3, 51\)"):
        array_stream(np.zeros((3, 51)), 25)


# Voices


def test_windows_cover_the_sound_once_it_is_pieced_together():
    samples = np.arange(round(9.3 * SAMPLE_RATE), dtype=np.float32)
    cut = list(windows(sound(samples)()))
    assert [(start, end) for start, end, _ in cut] == [(0, 4), (2, 6), (4, 8), (6, 9.3)]
    for start, end, part in cut:
        assert (part == samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]).all()
    exact = [(start, end) for start, end, _ in windows([samples[: 4 * SAMPLE_RATE]])]
    assert exact == [(0, 4)]
    ((start, end, short),) = windows([samples[:100]])
    assert (start, end) == (0, 100 / SAMPLE_RATE) and len(short) == SAMPLE_RATE // 2
    assert list(windows([])) == []


def test_silence():
    assert is_silent(np.zeros(8000, np.float32)) and not is_silent(voice(1.0))


def test_an_aroused_voice_and_a_subdued_one(priors):
    lively = Evidence().read(Clip(audio=sound(voice(pitch=200, spread=4, rate=6, darkness=0.6))), priors)
    dull = Evidence().read(Clip(audio=sound(voice(pitch=100, spread=0.6, rate=2.5, darkness=1.8))), priors)
    excited = [NAMES.index(name) for name in ("angry", "fear", "happy", "surprised")]
    assert lively.weights["voice"][excited].sum() > 0.55 and top(dull) == "sad"
    spread = np.ptp(lively.weights["voice"][excited])
    assert spread < 0.02, "prosody tells arousal, not which of the aroused emotions it is"
    for reading in (lively, dull):
        assert reading.sureness["combined"] < 0.25 and "how aroused" in reading.notes[-1]


def test_music_is_answered_by_not_knowing(priors):
    reading = Evidence().read(Clip(audio=sound(music())), priors)
    np.testing.assert_allclose(reading.weights["combined"], 1 / 8, atol=1e-3)
    assert reading.sureness["combined"] < 0.001 and "not go like speech" in reading.notes[-1]


def test_music_hardly_blurs_what_a_face_says(priors):
    alone = Evidence().read(face_clip((2, SMILE)), priors)
    played = Evidence().read(face_clip((2, SMILE), audio=sound(music(4.0))), priors)
    np.testing.assert_allclose(played.weights["combined"], alone.weights["combined"], atol=0.02)


def test_pitch_and_loudness_count_by_their_course_however_little_sounds_like_speech(monkeypatch):
    # Five measures, of which pitch and loudness are those of a child near the microphone; then the likeness to speech.
    heard = [[2.0, 24.0, -8.0, 5.0, -8.0, speech] for speech in (0.5, 0.3, 0.0)]
    monkeypatch.setattr("dicetalk.reading.voice._measure", lambda samples: heard.pop(0))
    prosody = Prosody()
    for _ in range(3):
        prosody.hear(np.ones(8000, np.float32))
    told, _ = prosody.shares()
    usual = np.array([AROUSAL[name] for name in NAMES]) == 0
    assert (told[:2, usual].min(1) > told[:2, ~usual].max(1)).all(), "what is usual for the clip is not aroused"
    np.testing.assert_allclose(told[2], 1 / 8)


def test_prosody_of_silence_between_speech():
    prosody = Prosody()
    for samples in (voice(), np.zeros(64000, np.float32)):
        prosody.hear(samples)
    told, speech = prosody.shares()
    assert not np.isnan(told[0]).any() and np.isnan(told[1]).all() and speech[0] > 0.9


def tones(seconds=4.0, hertz=50.0, level=-45.0, partials=(1.0, 0.5, 0.3)):
    """(n,) a steady sound at 16 kHz, such as mains hum, its level in dB of full scale."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    made = sum(share * np.sin(2 * np.pi * hertz * (number + 1) * time) for number, share in enumerate(partials))
    return (10 ** (level / 20) * made / np.sqrt(np.mean(made**2))).astype(np.float32)


def noise(seconds=4.0):
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)


@pytest.mark.parametrize(
    "made, speech",
    [
        (voice(), True),
        (voice(pitch=200, rate=6), True),
        (0.05 * voice(pitch=90), True),
        (voice() + tones(level=-40.0), True),
        (music(), False),
        (noise(), False),
        (tones(level=-45.0), False),
        (tones(hertz=60.0, level=-20.0), False),
        (tones(hertz=440.0, level=-20.0), False),
        (np.sign(tones(hertz=150.0)) * noise(), False),
    ],
)
def test_speech_is_told_from_other_sounds(made, speech):
    threads = torch.get_num_threads()
    share = (speech_in(made.astype(np.float32)) > 0.5).mean()
    assert share > 0.5 if speech else share < 0.05
    assert torch.get_num_threads() == threads, "the detector's library sets it for the whole process"


@pytest.mark.parametrize("hertz", [50.0, 60.0])
def test_mains_hum_is_no_voice(priors, hertz):
    reading = Evidence().read(Clip(audio=sound(tones(hertz=hertz))), priors)
    np.testing.assert_allclose(reading.weights["combined"], 1 / 8, atol=1e-3)
    assert "not go like speech" in reading.notes[-1]
    told = Evidence().read(Clip(audio=sound(voice())), priors).weights["voice"]
    hummed = Evidence().read(Clip(audio=sound(voice() + tones(hertz=hertz, level=-50.0))), priors).weights["voice"]
    np.testing.assert_allclose(hummed, told, atol=0.03)
