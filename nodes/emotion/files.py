"""DICE-Talk Save Emotion and Load Emotion, and the folder of saved emotions that other nodes look into."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ...dicetalk.emotion.files import EmotionLibrary, check_name, load_emotion, save_emotion, saved_names, saved_path
from ...dicetalk.emotion.parsing import to_text
from ...dicetalk.errors import InputError
from ...dicetalk.files import sha256_of
from ..checks import digest
from ..preview import shown_saved
from ..types import Emotion

FOLDER = "dicetalk_emotions"
_NONE = "(no emotion saved)"
_LONGEST_PROVENANCE = 1000


def register_emotions_folder():
    """Make `models/dicetalk_emotions` known to ComfyUI, so that extra_model_paths.yaml can name more such folders."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER), is_default=True)


def emotion_folders():
    """The folders of saved emotions; new ones are saved in the first."""
    return [Path(folder) for folder in folder_paths.get_folder_paths(FOLDER)]


def saved_emotions():
    """Name → path of the saved emotions, by name. Looked up again each time, as files come and go."""
    files = {}
    for folder in reversed(emotion_folders()):
        files.update({name: saved_path(folder, name) for name in saved_names(folder)})
    return dict(sorted(files.items()))


def emotion_library(dicetalk):
    """Name → emotion: those of the checkpoint, and the saved ones."""
    return EmotionLibrary(dicetalk.priors, emotion_folders())


def fingerprint(names):
    """Differs once the file of one of the names is saved again, comes or goes; "" as long as none is saved."""
    files = saved_emotions()
    found = {name: sha256_of(files[name]) for name in names if name in files}
    return digest(found) if found else ""


def named_in(text):
    """The saved emotions whose names may be in a text, whatever their capitals; all where it is None."""
    return [name for name in saved_emotions() if text is None or name.casefold() in text.casefold()]


def validated(check, value):
    """What `validate_inputs` gives back: True where `check` raises no InputError for the value, else its message.

    The value is None, and not known yet, where another node gives it.
    """
    try:
        if value is not None:
            check(value)
        return True
    except InputError as error:
        return str(error)


class DiceTalkSaveEmotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkSaveEmotion",
            display_name="Save DICE-Talk Emotion",
            category="DICE-Talk/emotion",
            description="Saves an emotion, a mix or a whole timeline under a name. DICE-Talk Emotion then lists it, "
            "and DICE-Talk Emotion Timeline knows its name.",
            search_aliases=["save emotion", "store expression", "emotion preset", "write emotion"],
            is_output_node=True,
            inputs=[
                Emotion.Input("emotion", tooltip="The emotion to save, with its bank options."),
                io.String.Input(
                    "name",
                    default="my emotion",
                    tooltip="Its name and, with .safetensors, its file's in models/dicetalk_emotions. Letters, digits, "
                    "spaces and _ - + . , ( ).",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="Replace another emotion that is saved under the name; otherwise that is an error.",
                ),
            ],
            outputs=[Emotion.Output(display_name="emotion", tooltip="The emotion under its new name.")],
        )

    @classmethod
    def validate_inputs(cls, name):
        return validated(check_name, name)

    @classmethod
    def fingerprint_inputs(cls, name, **_):
        return fingerprint(saved_emotions() if name is None else [name])  # so that a file that is gone is saved again

    @classmethod
    def execute(cls, emotion, name, overwrite) -> io.NodeOutput:
        try:
            path = saved_path(emotion_folders()[0], name)
        except InputError as error:
            raise InputError(f"name: {error}") from None
        if path.exists() and not overwrite and load_emotion(path) != emotion:
            raise InputError(
                f"name: another emotion is saved as {name!r} already. Choose another name, or switch overwrite on."
            )
        saved = emotion.renamed(name, emotion.provenance or to_text(emotion)[:_LONGEST_PROVENANCE])
        save_emotion(saved, path)
        return io.NodeOutput(saved, ui=shown_saved(saved, cls))


class DiceTalkLoadEmotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkLoadEmotion",
            display_name="Load DICE-Talk Emotion",
            category="DICE-Talk/emotion",
            description="Loads a saved emotion, mix or timeline. It needs no checkpoint.",
            search_aliases=["load emotion", "saved expression", "emotion preset", "read emotion"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=list(saved_emotions()) or [_NONE],
                    tooltip="A file of models/dicetalk_emotions, written by Save DICE-Talk Emotion or by "
                    "`python -m dicetalk emotion mix`.",
                ),
            ],
            outputs=[Emotion.Output(display_name="emotion", tooltip="For DICE-Talk Sampler or Guider.")],
        )

    @classmethod
    def validate_inputs(cls, name):
        # Looked up again, since files may have come after ComfyUI started.
        return name is None or name in list(saved_emotions()) or _no_such(name)

    @classmethod
    def fingerprint_inputs(cls, name):
        return fingerprint(saved_emotions() if name is None else [name])  # None: wired, not known yet

    @classmethod
    def execute(cls, name) -> io.NodeOutput:
        files = saved_emotions()
        if name not in files:
            raise InputError(f"name: {_no_such(name)}")
        emotion = load_emotion(files[name]).renamed(name)
        return io.NodeOutput(emotion, ui=shown_saved(emotion, cls))


def _no_such(name):
    names = list(saved_emotions())
    found = f"found are {', '.join(names[:20])}{', …' if len(names) > 20 else ''}" if names else "none is there"
    return (
        f"There is no saved emotion {name!r} in {emotion_folders()[0]} ({found}): save one by Save DICE-Talk Emotion, "
        "or put its file there."
    )
