"""When the tokens of a text are spoken, by the attention of Whisper's decoder to the sound.

The decoder reads the given text, as if it had written it, and some of its attention heads look at the sound of the
token that comes next. Their maps are normalized, smoothed and averaged, and dynamic time warping finds the path of the
text through them: the method of OpenAI's Whisper (its `timing.py`). transformers has it inside `generate` alone, for
text that the model writes itself; here it is for text that is given, and a test compares both. Those times are sure,
but about a tenth of a second late; `dicetalk.script.sound` finds the exact ones near them.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.whisper import TOKENIZER_FILE, load_whisper_model, tokenizer_remedy
from ..errors import InputError, reason
from ..model.audio import SAMPLE_RATE
from .sound import place_words, spoken_stretches
from .words import Word

SECONDS_PER_POSITION = 0.02
WINDOW = 30.0  # seconds that Whisper hears at once
_MARGIN = 2.0  # seconds at a window's end where words are not trusted: more than it holds may crowd there
_MEDIAN = 7  # positions
_MOST_TOKENS = 440  # of the decoder's 448 positions, without the special ones
_ENGLISH_TOKENS = 51864  # of whisper-tiny.en, which takes no language, although its tokenizer names them
# Of openai/whisper-tiny and whisper-tiny.en, by the number of tokens: (layer, head), as their generation_config.json.
_HEADS = {
    51865: ((2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5)),
    _ENGLISH_TOKENS: ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)),
}


class WordPlacer:
    """Places words by Whisper's attention. The language is the one that it hears in the first sound.

    Args:
        folder: a transformers folder of Whisper, with its tokenizer.json.

    Raises:
        InputError: a file is missing or unusable.
    """

    def __init__(self, folder):
        self.model = load_whisper_model(folder)
        self.tokenizer = _tokenizer(Path(folder) / TOKENIZER_FILE, self.model.config.vocab_size)
        self.heads = _alignment_heads(Path(folder), self.model.config)
        self.languages = {
            name[2:-2]: number
            for name, number in self.tokenizer.get_vocab().items()
            if name.startswith("<|") and name.endswith("|>") and 2 <= len(name) - 4 <= 3 and name[2:-2].isalpha()
        }
        if self.model.config.vocab_size == _ENGLISH_TOKENS:
            self.languages = {}
        self.language = None

    def place(self, written, speech, on_progress=None):
        """The words with their times.

        Args:
            written: Written words in their order.
            speech: (samples,) float array, mono, 16 kHz.
            on_progress: called with (seconds done, seconds in all); may raise to cancel.

        Returns:
            [Word, ...], within half a second of where Whisper hears them.

        Raises:
            InputError: the speech is silent, or too short for so many words.
        """
        speech = np.asarray(speech, dtype=np.float32)
        words = self.heard(written, speech, on_progress)
        try:
            return place_words(written, speech, words)
        except InputError:  # Whisper has words nearer to each other than anybody speaks
            return words

    def heard(self, written, speech, on_progress=None):
        """The words where Whisper's attention alone has them, without the pauses; arguments and errors as of `place`.

        Sound longer than 30 s is heard in windows that begin where the last sure word ended.
        """
        rough = place_words(written, speech)
        tokens = [self.tokens(word) for word in written]
        total = len(speech) / SAMPLE_RATE
        words, begin = [], 0.0
        while len(words) < len(written):
            if on_progress is not None:
                on_progress(begin, total)
            first = len(words)
            end = min(begin + WINDOW, total)
            count = _fitting(tokens[first:], rough[first:], end)
            piece = speech[round(begin * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
            starts = self._starts([token for word in tokens[first : first + count] for token in word], piece)
            edges = begin + starts[np.cumsum([0, *map(len, tokens[first : first + count])])]
            edges[-1] = min(edges[-1], end)
            sure = count
            if first + count < len(written) or end < total:
                sure = max(1, int(np.searchsorted(edges[1:], end - _MARGIN, side="right")))
                sure = min(sure, count)
            for word, start, stop in zip(written[first : first + sure], edges, edges[1:]):
                words.append(Word(word.text, float(start), float(stop), word.spaced))
            if words[-1].end <= begin and end < total:  # nothing was heard: go on without these words
                begin = end - _MARGIN
            else:
                begin = words[-1].end
        return trimmed_to_speech(words, spoken_stretches(speech))

    def tokens(self, word):
        """The numbers of a written word's tokens, with the space before it."""
        return self.tokenizer.encode(" " * word.spaced + word.text, add_special_tokens=False).ids

    def _starts(self, tokens, speech):
        """(tokens + 1,) seconds from the piece's start: where each is spoken, and where the last one ends."""
        attention = self.attention(tokens, speech)
        return starts_of(attention) * SECONDS_PER_POSITION

    @torch.no_grad()
    def attention(self, tokens, speech):
        """(heads, tokens + 1, positions): how the next token's prediction looks at the sound, the last for the end.

        Args:
            tokens: their numbers.
            speech: (samples,) float32 array, mono, 16 kHz, up to 30 s.
        """
        from transformers import WhisperFeatureExtractor

        mel = WhisperFeatureExtractor(feature_size=self.model.config.num_mel_bins)
        features = mel(speech, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        heard = self.model.encoder(features).last_hidden_state
        prompt = self._prompt(heard)
        inputs = torch.tensor([[*prompt, *tokens]])
        output = self.model.decoder(
            input_ids=inputs, encoder_hidden_states=heard, output_attentions=True, use_cache=False
        )
        positions = max(1, math.ceil(len(speech) / SAMPLE_RATE / SECONDS_PER_POSITION))
        maps = torch.stack([output.cross_attentions[layer][0, head] for layer, head in self.heads])
        return maps[:, len(prompt) - 1 :, :positions].float().numpy()

    def _prompt(self, heard):
        special = self.tokenizer.token_to_id
        start, transcribe, without = map(special, ("<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>"))
        if len(self.languages) < 2:
            return [start, without]
        if self.language is None:
            states = self.model.decoder(input_ids=torch.tensor([[start]]), encoder_hidden_states=heard)
            scores = states.last_hidden_state[0, -1] @ self.model.decoder.embed_tokens.weight.T
            self.language = max(self.languages, key=lambda name: float(scores[self.languages[name]]))
        return [start, self.languages[self.language], transcribe, without]


def starts_of(attention):
    """The positions where the rows of attention maps begin.

    Args:
        attention: (heads, rows, positions) float array, a row for each token and one for the end.

    Returns:
        (rows,) int array, not decreasing, from 0.
    """
    from scipy.ndimage import median_filter

    deviation = attention.std(axis=1, keepdims=True)
    maps = (attention - attention.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1)
    if maps.shape[-1] > _MEDIAN // 2:
        maps = median_filter(maps, size=(1, 1, _MEDIAN), mode="mirror")
    rows, positions = warping_path(-maps.mean(axis=0))
    return positions[np.concatenate([[True], np.diff(rows) > 0])]


def warping_path(cost):
    """Dynamic time warping: the cheapest path from the first to the last corner of a matrix.

    Args:
        cost: (rows, columns) float array.

    Returns:
        The path's rows and its columns, two int arrays; each step is by one row, one column, or both. Of equal
        ways the one along a row is taken, as transformers does.
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf, dtype=np.float32)
    total[0, 0] = 0
    came = np.zeros((rows + 1, columns + 1), dtype=np.int8)  # 0: both, 1: from the row before, 2: from the column
    came[0], came[:, 0] = 2, 1
    # Along the diagonals that meet at right angles with the path, all cells are known from the two before.
    for diagonal in range(2, rows + columns + 1):
        row = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        column = diagonal - row
        both, down, right = total[row - 1, column - 1], total[row - 1, column], total[row, column - 1]
        step = np.where((both < down) & (both < right), 0, np.where((down < both) & (down < right), 1, 2))
        came[row, column] = step
        total[row, column] = cost[row - 1, column - 1] + np.choose(step, (both, down, right))
    path, row, column = [], rows, columns
    while row or column:
        path.append((row - 1, column - 1))
        step = came[row, column]
        row, column = row - (step != 2), column - (step != 1)
    return np.array(path[::-1]).T


def trimmed_to_speech(words, stretches):
    """The words without the pauses that their times take in: each keeps the stretch that it has most of.

    Args:
        words: [Word, ...] in order.
        stretches: what `dicetalk.script.sound.spoken_stretches` gives.
    """
    trimmed = []
    for word in words:
        parts = [(max(start, word.start), min(end, word.end)) for start, end in stretches]
        parts = [part for part in parts if part[1] > part[0]]
        start, end = max(parts, key=lambda part: part[1] - part[0], default=(word.start, word.end))
        trimmed.append(Word(word.text, start, end, word.spaced))
    return trimmed


def _fitting(tokens, rough, end):
    """How many of the next words are in a window: those that seem to begin before its end, and fit the decoder."""
    count, held = 0, 0
    for word, place in zip(tokens, rough):
        if count and (place.start >= end or held + len(word) > _MOST_TOKENS):
            break
        count, held = count + 1, held + len(word)
    return count


def _tokenizer(path, size):
    from tokenizers import Tokenizer

    remedy = tokenizer_remedy(path.parent)
    if not path.is_file():
        raise InputError(f"{path} is missing, which Whisper reads words with: {remedy}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exceptions
        raise InputError(f"{path} cannot be read ({reason(error)}): {remedy}") from None
    needed = ("<|startoftranscript|>", "<|notimestamps|>")
    lacking = [name for name in needed if tokenizer.token_to_id(name) is None]
    if lacking or max(tokenizer.get_vocab().values()) >= size:
        raise InputError(f"{path} does not belong to the Whisper model beside it: {remedy}")
    return tokenizer


def _alignment_heads(folder, config):
    """((layer, head), ...) that look at the sound of words, as the folder says or as published for its size; else all
    of the upper half, as OpenAI's Whisper has it for a model that it does not know."""
    layers, heads = config.decoder_layers, config.decoder_attention_heads
    try:
        described = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["alignment_heads"]
        named = tuple((int(layer), int(head)) for layer, head in described)
    except (OSError, ValueError, KeyError, TypeError):
        named = _HEADS.get(config.vocab_size, ())
    if named and all(0 <= layer < layers and 0 <= head < heads for layer, head in named):
        return named
    return tuple((layer, head) for layer in range(layers // 2, layers) for head in range(heads))
