"""Placing a script's words in speech, with Whisper where its files are there."""

from pathlib import Path

from ..errors import InputError

METHODS = ("auto", "whisper", "sound")


def place_script(script, speech, checkpoint, method="auto", on_progress=None):
    """When a script's words are spoken.

    Args:
        script: Script.
        speech: (samples,) float array, mono, 16 kHz.
        checkpoint: `dicetalk.checkpoints.Checkpoint`, whose Whisper is used.
        method: "whisper", its decoder's attention and then the sound near there; "sound", the sound alone
            (`dicetalk.script.sound`); or "auto", the first of the two that the checkpoint's files allow.
        on_progress: called with (seconds done, seconds in all); may raise to cancel.

    Returns:
        ([Word, ...], the method that was used, a sentence on why it is not Whisper or None).

    Raises:
        InputError: another method; Whisper's files are missing or unusable; silent speech, or too short for the words.
    """
    if method not in METHODS:
        raise InputError(f"The method of placing words is {method}: give {', '.join(METHODS[:-1])} or {METHODS[-1]}.")
    problem = None if method == "sound" else _problem(checkpoint)
    if method == "whisper" and problem:
        raise InputError(problem)
    if method == "sound" or problem:
        from .sound import place_words

        words = place_words(script.words, speech)
        return words, "sound", problem and f"{problem} The words are placed by the sound alone."
    from .attention import WordPlacer

    words = WordPlacer(checkpoint.folder("whisper")).place(script.words, speech, on_progress)
    return words, "whisper", None


def _problem(checkpoint):
    if checkpoint.untrained:
        return f"The Whisper of {checkpoint.name} is untrained, so that it cannot place words."
    if checkpoint.miniature:
        return f"The Whisper of {checkpoint.name} hears drawn people only, and cannot place words."
    from ..checkpoints.whisper import TOKENIZER_FILE, tokenizer_remedy

    path = Path(checkpoint.folder("whisper")) / TOKENIZER_FILE
    if not path.is_file():
        return f"{path} is missing, which Whisper reads words with: {tokenizer_remedy(path.parent)}"
    return None
