"""What a creator sees: ComfyUI nodes, thin faces on `dicetalk`."""

from comfy_api.latest import ComfyExtension

from .audio import DiceTalkAudioFeatures
from .emotion import DiceTalkEmotion
from .emotion_bank import DiceTalkEmotionBank
from .emotion_files import DiceTalkLoadEmotion, DiceTalkSaveEmotion, register_emotions_folder
from .emotion_mix import DiceTalkEmotionMix
from .emotion_timeline import DiceTalkEmotionTimeline
from .loader import DiceTalkLoader, register_folder
from .portrait import DiceTalkPortrait
from .sampling import DiceTalkGuider, DiceTalkSampler


class DiceTalkExtension(ComfyExtension):
    async def on_load(self):
        register_folder()
        register_emotions_folder()

    async def get_node_list(self):
        return [
            DiceTalkLoader,
            DiceTalkAudioFeatures,
            DiceTalkPortrait,
            DiceTalkEmotion,
            DiceTalkEmotionMix,
            DiceTalkEmotionTimeline,
            DiceTalkEmotionBank,
            DiceTalkSaveEmotion,
            DiceTalkLoadEmotion,
            DiceTalkGuider,
            DiceTalkSampler,
        ]


async def comfy_entrypoint() -> DiceTalkExtension:
    return DiceTalkExtension()
