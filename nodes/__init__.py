"""What a creator sees: ComfyUI nodes, thin faces on `dicetalk`."""

import logging

from comfy_api.latest import ComfyExtension

from ..dicetalk import dependencies
from ..dicetalk.errors import InputError
from .dialogue import DiceTalkDialogue
from .emotion.bank import DiceTalkEmotionBank
from .emotion.files import DiceTalkLoadEmotion, DiceTalkSaveEmotion, register_emotions_folder
from .emotion.from_clip import DiceTalkEmotionFromClip, register_embedder_folders
from .emotion.mix import DiceTalkEmotionMix
from .emotion.preset import DiceTalkEmotion
from .emotion.script import DiceTalkScript
from .emotion.timeline import DiceTalkEmotionTimeline
from .emotion.wheel import DiceTalkEmotionWheel
from .examples import place_examples
from .job_list import DiceTalkJobList
from .loader import DiceTalkLoader, register_folder
from .paste_back import DiceTalkPasteBack
from .portrait import DiceTalkPortrait
from .react import DiceTalkReact
from .routes import register_routes
from .sampling.sampler import DiceTalkGuider, DiceTalkSampler
from .speech import DiceTalkAudioFeatures
from .video import DiceTalkVideo
from .words import show_plain_errors, speak_comfyui


class DiceTalkExtension(ComfyExtension):
    async def on_load(self):
        register_folder()
        register_emotions_folder()
        register_embedder_folders()
        register_routes()
        place_examples()
        show_plain_errors()

    async def get_node_list(self):
        nodes = [
            DiceTalkLoader,
            DiceTalkAudioFeatures,
            DiceTalkPortrait,
            DiceTalkJobList,
            DiceTalkEmotion,
            DiceTalkEmotionMix,
            DiceTalkEmotionWheel,
            DiceTalkEmotionTimeline,
            DiceTalkScript,
            DiceTalkEmotionFromClip,
            DiceTalkEmotionBank,
            DiceTalkSaveEmotion,
            DiceTalkLoadEmotion,
            DiceTalkGuider,
            DiceTalkSampler,
            DiceTalkVideo,
            DiceTalkPasteBack,
            DiceTalkReact,
            DiceTalkDialogue,
        ]
        if problem := dependencies.problem():
            logging.warning(problem)
            for node in nodes:
                _refuse(node, problem)
        for node in nodes:
            speak_comfyui(node)
        return nodes


def _refuse(node, problem):
    """Let a node be seen and wired, and say the problem when it is run."""

    def execute(cls, **inputs):
        raise InputError(problem)

    node.execute = classmethod(execute)


async def comfy_entrypoint() -> DiceTalkExtension:
    return DiceTalkExtension()
