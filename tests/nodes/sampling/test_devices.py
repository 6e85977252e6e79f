"""What a GPU would say of devices and types, told without one.

PyTorch's fake tensors have a shape, a type and a device, here "cuda", and no values: whatever mixes two devices or two
types fails as it would on a GPU. What is computed, and how fast, they do not tell.
"""

import dataclasses

import pytest
import torch
from small_model import UNET, SmallModel
from torch._subclasses.fake_tensor import FakeTensorMode

CUDA = torch.device("cuda:0")
TYPES = {"fp32": (torch.float32, None), "fp16": (torch.float16, None), "bf16": (torch.bfloat16, None)}
TYPES["fp8"] = (torch.float8_e4m3fn, torch.float16)
FRAMES = 30


@pytest.fixture(scope="module")
def small(pack):
    return SmallModel(pack)


@pytest.fixture(autouse=True)
def plain_attention(small, monkeypatch):
    """ComfyUI's attention for a CPU asks for the memory that a CPU has."""
    from comfy.ldm.modules.attention import attention_pytorch

    monkeypatch.setattr(small.module("nodes.sampling.model"), "optimized_attention", attention_pytorch)


def put(module, device, stays=()):
    """Replace a module's weights by fake ones on a device; those of layers of class `stays` are on the CPU."""
    for each in module.modules():
        place = "cpu" if isinstance(each, stays) else device
        for tensors in (each._parameters, each._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=place)
                    is_weight = tensors is each._parameters
                    tensors[name] = torch.nn.Parameter(fake, requires_grad=False) if is_weight else fake


@pytest.mark.parametrize("left_behind", [False, True], ids=["all_loaded", "blend_factors_left_behind"])
@pytest.mark.parametrize("together", [True, False], ids=["together", "one_by_one"])
@pytest.mark.parametrize("name", TYPES)
def test_a_window_on_a_gpu(small, name, together, left_behind):
    """Conditions come from the CPU. ComfyUI leaves blend factors there when a model is loaded in part."""
    import comfy.model_patcher

    nodes, Blender = small.module("nodes.sampling.model"), small.module("dicetalk.model.frames").Blender
    settings = nodes.DiceTalkModelConfig(dict(UNET))
    settings.set_inference_dtype(*TYPES[name])
    native = settings.get_model({})
    patcher = comfy.model_patcher.ModelPatcher(native, torch.device("cpu"), torch.device("cpu"))
    patcher.get_free_memory = lambda device: 1e12
    native.current_patcher = patcher
    guider = small.guider(patcher, small.conditions(FRAMES))
    guider.inner_model = native
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        put(native, CUDA, stays=Blender if left_behind else ())
        tensors = {name: value for name, value in vars(guider.conditions).items() if isinstance(value, torch.Tensor)}
        guider.conditions = dataclasses.replace(
            guider.conditions, **{name: torch.empty(value.shape) for name, value in tensors.items()}
        )
        guider._shared = {}
        economy = small.module("dicetalk.sampling.economy").Economy(25, False, lambda: None)
        economy.together, guider._economy = together, economy
        latents = torch.empty(25, *guider.conditions.image_latent.shape[1:], device=CUDA)
        sigmas, branches = torch.ones(25, device=CUDA), small.module("dicetalk.sampling.guidance").BRANCHES
        for first in (0, FRAMES - 7):  # the second window reaches into the frames behind the clip
            frames = list(range(first, first + 25))
            told = guider._denoise(native, latents, sigmas, frames, branches, {"transformer_options": {}})
            assert {(value.shape, value.dtype, value.device) for value in told.values()} == {
                (latents.shape, torch.float32, CUDA)
            }


def test_the_other_parts_on_a_gpu_when_no_weights_are_loaded(pack, small, tiny_checkpoint, monkeypatch):
    """As with --novram: weights stay on the CPU, and ComfyUI's layers fetch theirs when they are used."""
    import comfy.model_management

    module = small.module("nodes.parts")
    found = small.module("dicetalk.checkpoints.finding").resolve_checkpoint(tiny_checkpoint)
    parts = module.DiceTalkParts(found)
    patchers = [parts._whisper, parts._audio_linear, parts._pose_guider, parts._emo_model]
    emotion, loaded = parts.priors["happy"], []
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", lambda models, **_: loaded.extend(models))

    def heard(whisper, waveform, on_chunk, device, dtype):
        """`dicetalk.model.audio.feature_windows` without the log-mel spectrogram, which NumPy computes."""
        bins = torch.empty(1, whisper.config.num_mel_bins, 2 * whisper.config.max_source_positions, device=device)
        states = whisper(bins.to(dtype), output_hidden_states=True).hidden_states
        assert {(state.device, state.dtype) for state in states} == {(CUDA, torch.float32)}
        yield torch.empty(38, 10, len(states), whisper.config.d_model)

    monkeypatch.setattr(module, "feature_windows", heard)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        for patcher in patchers:
            patcher.load_device = CUDA
            put(patcher.model, "cpu")
        tokens, unconditional = parts.audio_tokens(torch.empty(48000), None)
        assert len(tokens) == 38 and tokens.shape[1:] == unconditional.shape[1:]
        assert parts.pose_features(torch.empty(1, 1, 64, 64)).shape[2:] == (8, 8)
        told, untold = parts.emotion_tokens(emotion, 38)
        assert told.shape == untold.shape
    assert {id(patcher) for patcher in loaded} == {id(patcher) for patcher in patchers}
    # Fake tensors let an embedding's weight and its indices differ in their device, which a GPU does not.
    for each in (each for patcher in patchers for each in patcher.model.modules()):
        where = {weight.device.type for weight in each.parameters(recurse=False)}
        assert where <= ({"cpu"} if hasattr(each, "comfy_cast_weights") else {"cuda"}), type(each)
