"""Words' times: on speech whose phonemes' times are known, and on attention that was made for the purpose."""

import json
import re
import tracemalloc

import numpy as np
import pytest
import torch

from dicetalk.checkpoints.download import WORDS as WORDS_FOLDER
from dicetalk.checkpoints.download import missing_files
from dicetalk.checkpoints.finding import Checkpoint
from dicetalk.drawn.person import Person
from dicetalk.drawn.sentences import SENTENCES, WORDS
from dicetalk.drawn.speech import speak
from dicetalk.errors import InputError
from dicetalk.script import attention
from dicetalk.script.attention import WordPlacer, starts_of, trimmed_to_speech, warping_path
from dicetalk.script.placing import place_script
from dicetalk.script.sound import place_words, spoken_stretches
from dicetalk.script.text import parse_script
from dicetalk.script.words import Word

RATE = 16000
LETTERS = [chr(number) for number in range(ord("a"), ord("z") + 1)]


def said(text, person=7, emotion="neutral", seed=0):
    """Sound of a drawn person, the script's words, and (words, 2) seconds of when each is spoken."""
    speech = speak(text, Person.of(person).voice, emotion, 1.0, np.random.default_rng(seed))
    sounds, times, at = [each for each in speech.phonemes if each[0] != "-"], [], 0
    for word in re.findall(r"[a-z']+", text.casefold()):
        times.append((sounds[at][1], sounds[at + len(WORDS[word]) - 1][2]))
        at += len(WORDS[word])
    return speech.sound, parse_script(text).words, np.array(times)


def errors(words, times):
    return np.abs(np.array([(word.start, word.end) for word in words]) - times)


@pytest.mark.parametrize("emotion", ["neutral", "sad", "angry", "surprised"])
def test_words_of_sentences_are_within_a_fifth_of_a_second(emotion):
    found = []
    for number in range(0, len(SENTENCES), 5):
        sound, written, times = said(SENTENCES[number], person=5 + number % 3, emotion=emotion, seed=number)
        found.append(errors(place_words(written, sound), times))
    found = np.concatenate(found)
    assert (found <= 0.2).mean() >= 0.96
    assert np.median(found) <= 0.03


def test_words_of_several_sentences():
    found = []
    for seed, emotion in enumerate(["neutral", "happy", "fear"]):
        text = " ".join(np.random.default_rng(seed).permutation(SENTENCES)[:5])
        sound, written, times = said(text, emotion=emotion, seed=seed)
        words = place_words(written, sound)
        found.append(errors(words, times))
        assert all(before.end <= after.start + 1e-9 for before, after in zip(words, words[1:]))
    assert (np.concatenate(found) <= 0.2).mean() >= 0.9


def test_long_pauses_and_silence_at_both_ends_belong_to_no_word():
    sound, written, times = said("We keep the boat by the blue bridge.")
    parts = [np.zeros(2 * RATE), sound, np.zeros(3 * RATE), sound, np.zeros(RATE)]
    words = place_words(written * 2, np.concatenate(parts).astype(np.float32))
    later = 2 + len(sound) / RATE + 3
    assert errors(words, np.concatenate([times + 2, times + later])).max() <= 0.2
    assert [round(start) for start, _ in spoken_stretches(np.concatenate(parts))] == [2, round(later)]


def test_words_near_known_times_stay_near_them():
    sound, written, times = said("We keep the boat by the blue bridge.")
    later = [Word(word.text, start + 0.7, end + 0.7) for word, (start, end) in zip(written, times)]
    words = place_words(written, sound, later)
    assert all(word.end >= start + 0.7 - 0.51 for word, (start, _) in zip(words, times))


def test_silence_and_too_many_words_are_errors():
    with pytest.raises(InputError, match="silent"):
        place_words(parse_script("Hello").words, np.zeros(RATE))
    with pytest.raises(InputError, match="silent"):
        place_words(parse_script("Hello").words, np.zeros(0))
    sound, _, _ = said("We keep the boat.")
    with pytest.raises(InputError, match="400 words are too many"):
        place_words(parse_script("hello " * 400).words, sound)


def test_memory_grows_with_the_length_of_speech_not_with_its_square():
    sound, written, times = said("We keep the boat by the blue bridge.")
    length = len(sound) / RATE

    def peak(count):
        near = [Word("", start + length * k, end + length * k) for k in range(count) for start, end in times]
        tracemalloc.start()
        try:
            words = place_words(written * count, np.tile(sound, count), near)
            return tracemalloc.get_traced_memory()[1], words
        finally:
            tracemalloc.stop()

    (short, _), (long, words) = peak(20), peak(80)
    assert errors(words[-8:], times + length * 79).max() <= 0.2
    assert long < 5 * short


# Whisper's attention


def test_the_path_is_that_of_transformers():
    from transformers.models.whisper.generation_whisper import _dynamic_time_warping

    for seed in range(5):
        random = np.random.default_rng(seed)
        cost = random.integers(0, 4, (6, 40)).astype(np.float64)  # with equal ways in it
        for mine, theirs in zip(warping_path(cost), _dynamic_time_warping(cost)):
            np.testing.assert_array_equal(mine, theirs)


def test_boundaries_of_made_attention_are_found():
    random = np.random.default_rng(0)
    edges = np.array([0, 13, 40, 47, 90, 120])
    maps = np.abs(random.normal(0, 0.02, (3, 5, 120)))
    for row, (start, end) in enumerate(zip(edges, edges[1:])):
        maps[:, row, start:end] += 0.3
    assert np.abs(starts_of(maps) - edges[:-1]).max() <= 1


@pytest.fixture(scope="module")
def whisper_folder(tmp_path_factory):
    """A whole Whisper of random weights, and a tokenizer with one token a letter."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    folder = tmp_path_factory.mktemp("whisper")
    special = ["<|startoftranscript|>", "<|en|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>", "<|endoftext|>"]
    vocabulary = {
        token: number for number, token in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *special])
    }
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=len(vocabulary),
        d_model=16,
        encoder_layers=4,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
    )
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"alignment_heads": [[0, 1], [1, 0]]}))
    return folder


def test_attention_is_read_as_transformers_reads_it(whisper_folder):
    from types import SimpleNamespace

    from transformers import WhisperForConditionalGeneration

    placer = WordPlacer(whisper_folder)
    assert placer.heads == ((0, 1), (1, 0))
    sound, written, _ = said("We keep the boat.")
    tokens = [token for word in written for token in placer.tokens(word)]
    assert len(tokens) == len("We keep the boat.") + 1  # with the space before the first
    maps = placer.attention(tokens, sound)
    assert maps.shape == (2, len(tokens) + 1, int(np.ceil(len(sound) / 320)))

    model = WhisperForConditionalGeneration.from_pretrained(whisper_folder)
    weights = torch.zeros(1, 2, len(tokens) + 1, maps.shape[-1])
    layers = [weights.clone(), weights.clone()]
    layers[0][0, 1], layers[1][0, 0] = torch.tensor(maps[0]), torch.tensor(maps[1])

    class Generated(SimpleNamespace):
        def __contains__(self, name):
            return False

    generated = Generated(cross_attentions=[layers], sequences=torch.zeros(1, len(tokens) + 2))
    theirs = model._extract_token_timestamps(generated, [[0, 1], [1, 0]], num_input_ids=0)[0, :-1]
    np.testing.assert_allclose(starts_of(maps) * 0.02, theirs.numpy(), atol=1e-6)


def test_whole_whisper_places_words_in_order(whisper_folder):
    placer = WordPlacer(whisper_folder)
    sound, written, _ = said("We keep the boat by the blue bridge.")
    words = placer.place(written, sound)
    assert placer.language in ("en", "de")  # what random weights hear
    assert [word.text for word in words] == [word.text for word in written]
    assert all(word.start <= word.end for word in words)
    assert all(before.end <= after.start + 1e-6 for before, after in zip(words, words[1:]))
    assert words[-1].end <= len(sound) / RATE + 0.02


def test_speech_longer_than_a_window(monkeypatch):
    """Attention that knows the words' times, but crowds those that a window does not hold at its end."""
    sound, written, times = said("We keep the boat by the blue bridge.")
    count = 20
    length = len(sound) / RATE
    speech = np.concatenate([sound] * count)
    written, times = written * count, np.concatenate([times + length * number for number in range(count)])
    placer = WordPlacer.__new__(WordPlacer)
    numbers = iter(range(len(written)))
    monkeypatch.setattr(WordPlacer, "tokens", lambda self, word: [next(numbers)])
    windows = []

    def made(self, tokens, piece):
        begin = (piece.__array_interface__["data"][0] - base) / 4 / RATE
        windows.append((begin, len(piece) / RATE))
        positions = np.arange(int(np.ceil(len(piece) / RATE / 0.02))) * 0.02 + begin
        maps = np.full((2, len(tokens) + 1, len(positions)), 0.01)
        for row, token in enumerate(tokens):
            start, end = times[token]
            maps[:, row, (positions >= start) & (positions < end)] = 1
        return maps

    monkeypatch.setattr(WordPlacer, "attention", made)
    speech = np.ascontiguousarray(speech, dtype=np.float32)
    base = speech.__array_interface__["data"][0]
    monkeypatch.setattr(attention, "place_words", lambda *given: rough(*given))

    def rough(written, speech, around=None):
        if around is not None:
            raise InputError("as they are")
        off = times + np.linspace(0, 2.5, len(times))[:, None]  # a rough guess, late in the end
        return [Word(word.text, *place) for word, place in zip(written, off)]

    words = placer.place(written, speech)
    assert len(words) == len(written)
    assert errors(words, times).max() <= 0.2
    assert len(windows) >= 2 and all(length <= 30.01 for _, length in windows)


def test_words_lose_the_pauses_in_their_times():
    words = trimmed_to_speech([Word("a", 0.0, 1.4), Word("b", 1.4, 3.0)], [(0.3, 1.0), (1.8, 2.5)])
    assert [(word.start, word.end) for word in words] == [(0.3, 1.0), (1.8, 2.5)]


def test_whisper_needs_its_tokenizer(whisper_folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((whisper_folder / name).read_bytes())
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        WordPlacer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json cannot be read"):
        WordPlacer(tmp_path)


def test_the_tokenizer_is_fetched_to_where_a_shared_whisper_is(tmp_path):
    shared = tmp_path / "sonic" / "whisper-tiny"
    shared.mkdir(parents=True)
    sound, _, _ = said("We keep the boat.")
    checkpoint = Checkpoint("mine", tmp_path / "dicetalk", {}, whisper=shared)
    _, method, note = place_script(parse_script("We keep the boat."), sound, checkpoint)
    assert method == "sound" and f"download --only words --output {tmp_path / 'sonic'}`" in note
    ((name, target),) = missing_files(tmp_path / "sonic", [WORDS_FOLDER])[WORDS_FOLDER].items()
    assert (name, target) == ("tokenizer.json", shared / "tokenizer.json")


def test_the_method_that_the_files_allow(whisper_folder, tmp_path, tiny_checkpoint):
    sound, _, times = said("We keep the boat by the blue bridge.")
    script = parse_script("We keep the boat by the blue bridge.")
    trained = Checkpoint("mine", tmp_path, {}, whisper=whisper_folder)
    assert place_script(script, sound, trained)[1:] == ("whisper", None)
    words, method, note = place_script(script, sound, trained, "sound")
    assert (method, note) == ("sound", None)
    assert errors(words, times).max() <= 0.2
    untrained = Checkpoint("tiny", tiny_checkpoint, {}, whisper=tiny_checkpoint / "whisper-tiny")
    _, method, note = place_script(script, sound, untrained)
    assert method == "sound" and "untrained" in note
    with pytest.raises(InputError, match="untrained"):
        place_script(script, sound, untrained, "whisper")
    with pytest.raises(InputError, match="give auto, whisper or sound"):
        place_script(script, sound, untrained, "ear")
