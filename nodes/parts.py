"""DICETALK: the parts of a checkpoint beside the UNet, each under ComfyUI's memory management."""

from functools import cached_property

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch

from ..dicetalk.checkpoints.finding import Checkpoint
from ..dicetalk.checkpoints.loading import fitted_part, read_state_dict
from ..dicetalk.checkpoints.priors import load_priors
from ..dicetalk.checkpoints.whisper import load_whisper_encoder
from ..dicetalk.memory import gathered
from ..dicetalk.model.audio import feature_windows, num_frames
from ..dicetalk.model.bank import usage
from ..dicetalk.model.emotion_tokens import bank_options, emotion_tokens
from .sampling.operations import use_operations

_FRAMES_AT_ONCE = 64


class DiceTalkParts:
    """Whisper encoder, audio projection, pose guider and emotion model of a checkpoint, and its emotion priors.

    The parts are loaded from their files when the checkpoint is loaded, and moved by ComfyUI when they are used. They
    compute in float32, whatever the type of their weights.
    """

    def __init__(self, checkpoint: Checkpoint):
        self.checkpoint = checkpoint
        self._whisper = _patcher(_whisper(checkpoint.folder("whisper")))
        self._audio_linear, self._pose_guider, self._emo_model = (
            _patcher(_part(part, checkpoint.file(part))) for part in ("audio_linear", "pose_guider", "emo_model")
        )

    @cached_property
    def priors(self):
        """Name → Emotion."""
        return load_priors(self.checkpoint.folder("emotions"))

    @property
    def audio_token_bytes(self):
        """Of the speech tokens of one frame."""
        projection = self._audio_linear.model.part
        return 4 * projection.tokens * projection.dim

    def audio_tokens(self, waveform, on_chunk):
        """Speech → the UNet's audio input.

        Args:
            waveform: (samples,) float32, mono, 16 kHz.
            on_chunk: called with (done, total) before each 30 s of Whisper; may raise to cancel.

        Returns:
            (frames, tokens, dim) and (1, tokens, dim) unconditional tokens, float32 on the intermediate device.
        """
        keep = comfy.model_management.intermediate_device()
        device, whisper = _use(self._whisper)

        def before_chunk(done, total):
            on_chunk(done, total)
            _use(self._whisper)  # which may have had to make room for the projection

        def projected():
            for windows in feature_windows(whisper, waveform, before_chunk, device, torch.float32):
                _, project = _use(self._audio_linear)
                for batch in windows.split(_FRAMES_AT_ONCE):
                    comfy.model_management.throw_exception_if_processing_interrupted()
                    yield project(batch.to(device)).to(keep)

        tokens = gathered(projected(), num_frames(len(waveform)))
        device, project = _use(self._audio_linear)
        return tokens, project.unconditional(device, torch.float32).to(keep)

    def emotion_tokens(self, emotion, num_frames):
        """(1 or num_frames, tokens, dim) and (1, tokens, dim) unconditional, float32 on the intermediate device."""

        def on_chunk(done, total):
            comfy.model_management.throw_exception_if_processing_interrupted()

        device, model = _use(self._emo_model)
        keep = comfy.model_management.intermediate_device()
        told = emotion_tokens(model, emotion, num_frames, device=device, dtype=torch.float32, on_chunk=on_chunk)
        return told.to(keep), model.unconditional(bank_options(emotion), device, torch.float32).to(keep)

    def bank_usage(self, emotions):
        """(N, heads, codes) float32 array: how much N emotions use each code; see `dicetalk.model.bank.usage`."""
        device, model = _use(self._emo_model)
        return usage(model, emotions, device=device, dtype=torch.float32)

    def pose_features(self, face_mask):
        """(1, 1, height, width) in 0..1 → (1, channels, height / 8, width / 8) on the intermediate device."""
        device, guider = _use(self._pose_guider)
        return guider(face_mask.to(device, torch.float32)).to(comfy.model_management.intermediate_device())


def _use(patcher):
    """The device that a part computes on, and the part, loaded."""
    device = patcher.load_device
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    # With --novram all weights stay where they are; only ComfyUI's own layers then fetch theirs when they are used.
    for module in patcher.model.modules():
        if not hasattr(module, "comfy_cast_weights"):
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.device != device:
                    setattr(module, name, torch.nn.Parameter(parameter.to(device), requires_grad=False))
    return device, patcher.model.part


class DiceTalkPart(torch.nn.Module):
    """ModelPatcher writes a model's `device`, which the parts have as a property."""

    def __init__(self, part):
        super().__init__()
        self.part = part


def _patcher(part):
    comfy.model_management.archive_model_dtypes(part)
    return comfy.model_patcher.CoreModelPatcher(
        DiceTalkPart(part),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def _part(part, path):
    state_dict = read_state_dict(path, part)
    return _with_operations(fitted_part(part, state_dict, path), state_dict)


def _whisper(folder):
    encoder = load_whisper_encoder(folder, dtype=None)
    state_dict = encoder.state_dict()
    # transformers adds the weight of embed_positions itself, without calling the layer
    return _with_operations(encoder, state_dict, keep=(torch.nn.Embedding,))


def _with_operations(module, state_dict, keep=()):
    use_operations(module, comfy.ops.manual_cast, device="meta", keep=keep)
    module.load_state_dict(state_dict, assign=True)
    return module.eval().requires_grad_(False)
