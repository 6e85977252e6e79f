"""Drawn takes: what is said and how, sound and lips that agree, and the sets to train with and to test on."""

from itertools import islice

import numpy as np
import pytest

from dicetalk.drawn import CLASSES, SENTENCES, Person, Take, lip_gap, takes
from dicetalk.drawn.sentences import WORDS, phonemes
from dicetalk.drawn.speech import MOUTH, speak
from dicetalk.drawn.splits import held_out_cells, people, seeds, sentences
from dicetalk.emotion.options import NAMES
from dicetalk.errors import InputError
from dicetalk.reading import face_actions


def loudness(take):
    return np.sqrt((take.sound.reshape(-1, 1280).astype(np.float64) ** 2).mean(1))


@pytest.fixture(scope="module")
def some_takes():
    """Each class once, by different people who say different sentences."""
    return [Take(Person.of(3 * n), *CLASSES[n], (5 * n) % len(SENTENCES), n) for n in range(len(CLASSES))]


def test_a_take_follows_from_its_five_parts():
    first, again = (Take(Person.of(2), "happy", 3, 4, 5) for _ in range(2))
    assert first == again
    assert first.sound.tobytes() == again.sound.tobytes() and first.blendshapes.tobytes() == again.blendshapes.tobytes()
    assert first.frame(3).tobytes() == again.frame(3).tobytes() and first.face_box() == again.face_box()
    for other in (Take(Person.of(2), "happy", 3, 4, 6), Take(Person.of(2), "happy", 2, 4, 5)):
        assert not np.array_equal(first.blendshapes[:10], other.blendshapes[:10])


def test_parts_of_a_take_fit_together(some_takes):
    for take in some_takes:
        frames = len(take)
        assert take.blendshapes.shape == (frames, 52) and take.blendshapes.dtype == np.float32
        assert (take.blendshapes >= 0).all() and (take.blendshapes <= 1).all()
        assert take.sound.shape == (1280 * frames,) and take.sound.dtype == np.float32
        assert 0.1 < np.abs(take.sound).max() < 1 and (take.sound * 32768 % 1 == 0).all()
        assert len(take.poses) == frames and 15 < frames < 80
        assert NAMES[take.emotion_number] == take.emotion
        assert CLASSES[take.class_number] == (take.emotion, take.level)
    assert [take.class_number for take in some_takes] == list(range(22))
    pictures = list(some_takes[0].frames(64))
    assert len(pictures) == len(some_takes[0]) and pictures[0].shape == (64, 64, 3) and pictures[0].dtype == np.uint8


def test_lips_follow_the_sound(some_takes):
    own = [np.corrcoef(lip_gap(take.blendshapes), loudness(take))[0, 1] for take in some_takes]
    assert np.mean(own) > 0.8 and min(own) > 0.5
    others = []
    for take, other in zip(some_takes, some_takes[1:]):
        both = min(len(take), len(other))
        others.append(np.corrcoef(lip_gap(take.blendshapes)[:both], loudness(other)[:both])[0, 1])
    assert np.mean(others) < 0.4


def test_lips_close_for_every_p_b_and_m(some_takes):
    """Whatever the emotion, in at least one frame each: the smiling, the wide open and the sneering mouth too."""
    count = 0
    for take in some_takes:
        gap, middles = lip_gap(take.blendshapes), (np.arange(len(take)) + 0.5) / 12.5
        for name, start, end in take.speech.phonemes:
            if name in ("P", "B", "M"):
                assert gap[(middles >= start) & (middles < end)].min() < 1e-6, (take.emotion, name, start)
                count += 1
    assert count > 40


def test_a_take_shows_its_emotion_as_the_projects_reader_reads_it(some_takes):
    def read(take):
        values = face_actions.without_rest(face_actions.features(take.blendshapes), len(take) / 12.5)
        return NAMES[face_actions.probabilities(values).mean(0).argmax()]

    marked = [take for take in some_takes if take.level > 1 or take.emotion == "neutral"]
    assert len(marked) == 15 and [read(take) for take in marked] == [take.emotion for take in marked]


def test_expressions_come_and_go():
    take = Take(Person.of(1), "disgusted")
    strength = take.blendshapes[:, face_actions.BLENDSHAPES.index("noseSneerLeft")]
    middle = strength[len(strength) // 3 : -len(strength) // 3].mean()
    assert strength[0] < 0.6 * middle and strength[-1] < 0.8 * middle and middle > 0.6


def test_people_blink():
    blinks = 0
    for number in range(6):
        take = Take(Person.of(number), "neutral", seed=number)
        blinks += (take.blendshapes[:, face_actions.BLENDSHAPES.index("eyeBlinkLeft")] > 0.9).sum()
    assert 1 <= blinks < 30


def _spectrum(sound):
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 2**16)) ** 2
    return np.fft.rfftfreq(2**16, 1 / 16000), power


def _part(speech, name):
    start, end = next((start, end) for sound, start, end in speech.phonemes if sound == name)
    return speech.sound[round(start * 16000) : round(end * 16000)].astype(np.float64)


def test_vowels_have_their_formants_and_consonants_their_hiss():
    voice = Person.of(3).voice
    speech = speak("she saw tea, bread, four", voice)

    def share(part, low, high):
        hertz, power = _spectrum(part)
        return power[(hertz >= low) & (hertz < high)].sum() / power.sum()

    f = voice.formants
    assert share(_part(speech, "IY"), 1900 * f, 2900 * f) > 3 * share(_part(speech, "AO"), 1900 * f, 2900 * f)
    assert share(_part(speech, "AO"), 450 * f, 1000 * f) > 2 * share(_part(speech, "IY"), 450 * f, 1000 * f)
    assert share(_part(speech, "S"), 4000, 8000) > 0.7 > 0.4 > share(_part(speech, "SH"), 4000, 8000)


def test_voices_are_peoples_own_and_emotion_is_in_them():
    def pitch(speech):
        """Hz, by the autocorrelation of the loudest 80 ms."""
        blocks = speech.sound.reshape(-1, 1280).astype(np.float64)
        block = blocks[(blocks**2).sum(1).argmax()]
        power = np.abs(np.fft.rfft(block * np.hanning(len(block)), 8192)) ** 2
        lags = np.fft.irfft(power)[: len(block) // 2]
        low, high = 16000 // 450, 16000 // 70
        return 16000 / (low + lags[low:high].argmax())

    people_ = sorted(map(Person.of, range(12)), key=lambda person: person.voice.pitch)
    deep, high = people_[0].voice, people_[-1].voice
    assert pitch(speak(SENTENCES[0], deep)) < 0.8 * pitch(speak(SENTENCES[0], high))
    plain, sad, afraid = (speak(SENTENCES[0], deep, *each) for each in (("neutral", 0), ("sad", 0.9), ("fear", 0.9)))
    assert len(sad.mouth) > len(plain.mouth) > len(afraid.mouth)
    assert pitch(sad) < pitch(plain) < pitch(afraid) and sad.sound.std() < 0.8 * plain.sound.std()
    assert speak(SENTENCES[0], deep, "angry", 0.9).sound.std() > 1.3 * plain.sound.std()


def test_every_sentence_can_be_said_and_any_other_of_its_words():
    said = {sound for text in SENTENCES for sound in phonemes(text)}
    assert len(SENTENCES) == 32 and all(phonemes(word)[0] == phonemes(word)[-1] == "-" for word in WORDS)
    mouth = speak("Bring me my blue umbrella, please!", Person.of(0).voice).mouth
    assert mouth.shape[1] == len(MOUTH) and len(said) > 35
    for name in sorted({sound for sounds in WORDS.values() for sound in sounds}):
        assert name in said, f"{name} is in no sentence"


def test_sets_are_disjoint():
    for ours in (people, seeds):
        learned, held_out = ours("train", 30), ours("held-out", 10)
        assert len(set(learned)) == 30 and len(set(held_out)) == 10 and not set(learned) & set(held_out)
    assert sorted(sentences("train") + sentences("held-out")) == list(range(len(SENTENCES)))
    words = {word for number in sentences("train") for word in SENTENCES[number].casefold().strip(".?!").split()}
    assert len(sentences("held-out")) == 8 and len(words) > 60
    for split in ("train", "held-out"):
        some = list(islice(takes(split, 4), 0, None, 50))
        assert {take.person.number for take in some} <= set(people(split, 4))
        assert {SENTENCES.index(take.sentence) for take in some} <= set(sentences(split))
        assert {take.seed for take in some} == set(seeds(split, 1))


def test_cells_of_person_and_emotion_are_held_out_whole():
    numbers = people("train", 14)
    cells = held_out_cells(numbers, 2)
    assert len(cells) == 28 and {sum(name == emotion for _, name in cells) for emotion in NAMES} == {0, 4}
    assert all(sum(person == number for person, _ in cells) == 2 for number in numbers)
    one_each = [(name, 1) for name in NAMES]
    trained = {(take.person.number, take.emotion) for take in takes("train", 14, classes=one_each, without=cells)}
    tested = {(take.person.number, take.emotion) for take in takes("train", 14, classes=one_each, only=cells)}
    assert tested == cells and not trained & cells
    assert trained | tested == {(number, name) for number in numbers for name in NAMES}


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: Take(Person.of(0), "bored"), "The emotion is 'bored'"),
        (lambda: Take(Person.of(0), "sad", 0), "The level of sad is 0"),
        (lambda: Take(3, "sad"), "must be a Person"),
        (lambda: Take(Person.of(0), "sad", sentence=99), "The sentence is 99: give a whole number from 0 to 31"),
        (
            lambda: Take(Person.of(0), "sad", sentence="A zebra sleeps"),
            "cannot say zebra: they know the words a, about",
        ),
        (lambda: Take(Person.of(0), "sad", sentence="..."), "1 to 100 words, not 0"),
        (lambda: Take(Person.of(0), "sad", sentence="we " * 101), "1 to 100 words, not 101"),
        (lambda: Take(Person.of(0), "sad", seed=-1), "The seed of a take is -1"),
        (lambda: Take(Person.of(0), "sad").frames(5), "from 32 to 1024"),
        (lambda: people("test", 3), "The split is 'test'"),
        (lambda: held_out_cells((1, 2), 8), "give 0 to 7"),
    ],
)
def test_wrong_input(wrong, message):
    with pytest.raises(InputError, match=message):
        wrong()


@pytest.mark.parametrize(
    "number, emotion, sentence, frames, movement, level, grid",
    [
        (0, "happy", 0, 32, 4.3661, 0.05394, "178 159 160 173 180 159 160 177 183 170 165 182 174 152 151 173"),
        (12, "fear", 7, 32, 8.3667, 0.04518, "176 112 111 180 141 87 87 148 136 91 88 144 127 90 89 135"),
    ],
)
def test_the_world_stays_the_same(number, emotion, sentence, frames, movement, level, grid):
    """What is trained on it would not fit another one. A little room for other versions of Pillow and NumPy."""
    take = Take(Person.of(number), emotion, None, sentence, 1)
    assert len(take) == frames and take.blendshapes.mean(0).sum() == pytest.approx(movement, abs=1e-3)
    assert np.sqrt(np.mean(take.sound.astype(np.float64) ** 2)) == pytest.approx(level, abs=1e-4)
    means = take.frame(12, 64).mean(2).reshape(4, 16, 4, 16).mean((1, 3)).ravel()
    np.testing.assert_allclose(means, list(map(int, grid.split())), atol=2)
