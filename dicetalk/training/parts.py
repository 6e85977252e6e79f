"""The parts that train: where they start, which of their weights learn, and how they are saved."""

import hashlib
import json
import re
from pathlib import Path
from typing import Callable

import torch

from ..checkpoints.classes import KNOWN_FROM_TRAINING, save_order
from ..checkpoints.finding import PARTS, WEIGHTS_FOLDER
from ..checkpoints.loading import build_part, load_part
from ..checkpoints.student import STUDENT_FILE
from ..emotion.options import CLASSES
from ..errors import InputError, reason
from ..files import written_beside
from .network import Parts
from .objective import Objective

# Attention to the single CLIP token is that token's value: its query and key projections get no gradient.
NO_GRADIENT = re.compile(r"\.attn2\.to_k\.weight$")
LORA_TARGETS = r".*\.attn[12]\.(to_q|to_v|to_out\.0)|.*\.attn1\.to_k"
LORA_FILE = "lora.safetensors"


def load_parts(checkpoint) -> dict:
    """The four parts of a `Checkpoint`, in float32."""
    return {part: _owned(load_part(part, checkpoint.file(part), torch.float32)) for part in PARTS}


def _owned(module):
    """With weights of its own, not mapped to the file, which could be replaced."""
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()
    return module


def new_parts(config, seed=0, unet=None) -> dict:
    """Parts with random weights.

    Args:
        config: part → arguments of its class; a missing part has the released size. `{"unet": {"block_out_channels":
            [32, 64, 64, 64], …}, …}`.
        seed: of the weights.
        unet: one with weights, in place of a random one.

    Raises:
        InputError: an argument is unknown, or sizes do not fit each other or do not follow from the weights' shapes.
    """
    from ..model.audio import AudioProjection
    from ..model.emotion import EmotionModel
    from ..model.pose_guider import PoseGuider
    from ..model.unet import DiceTalkUNet

    classes = dict(zip(PARTS, (DiceTalkUNet, PoseGuider, AudioProjection, EmotionModel)))
    if not isinstance(config, dict) or not set(config) <= set(classes):
        raise InputError(f"The configuration must be an object with some of {', '.join(classes)}.")
    parts = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part, kind in classes.items():
            if part == "unet" and unet is not None:
                parts[part] = unet
                continue
            given = {name: tuple(v) if isinstance(v, list) else v for name, v in config.get(part, {}).items()}
            try:
                parts[part] = kind(**given)
            except Exception as error:  # the classes raise many kinds for sizes that they cannot have
                raise InputError(f"The configuration of {part} cannot be used ({reason(error)}).") from error
        codes = parts["emo_model"].codebook
        codes.codebook.weight.data.uniform_(-1 / codes.size, 1 / codes.size)  # as published
    check_parts(parts)
    return parts


@torch.no_grad()
def start_from_emotions(emotion_model, priors, seed=0) -> None:
    """Let a new emotion model distinguish emotions from the first step.

    Emotions are far from zero and near each other. With weights that know nothing of that, all of them soon have the
    same nearest code, and the vector-quantization loss draws their places in the codes' space together until nothing
    is left of them. So both maps that see emotions start centred on them and scaled to a spread of 1, and the codes
    start at places of emotions, where other models restart codes that are not used (Dhariwal et al. 2020).

    Args:
        emotion_model: `EmotionModel` with random weights; changed in place.
        priors: name → (emotion_dim,) mean, of two emotions or more.
        seed: of the places.
    """
    means = torch.stack([priors[name] for name in sorted(priors)]).float()
    centre, fc = means.mean(0), emotion_model.codebook.fc
    for linear in (emotion_model.emo_linear.proj1, fc):
        spread = ((means - centre) @ linear.weight.T).std()
        linear.weight /= spread.clamp(min=1e-6)
        linear.bias -= linear.weight @ centre
    random, codes = torch.Generator().manual_seed(seed), emotion_model.codebook.codebook.weight
    doses = 0.5 + torch.rand(len(codes), 1, generator=random)
    places = centre + doses * (means[torch.arange(len(codes)) % len(means)] - centre)
    codes.copy_(fc(places + 0.1 * torch.randn(places.shape, generator=random)))


def load_svd_unet(folder):
    """Stable Video Diffusion's UNet with adapters that add nothing yet: their values are zero.

    Args:
        folder: of Stable Video Diffusion in diffusers' layout, with unet/ in it.

    Returns:
        DiceTalkUNet in float32.

    Raises:
        InputError: there is no such file, or it is of another network.
    """
    from ..checkpoints.tensors import Unreadable, read_tensors
    from ..model.unet import DiceTalkUNet, unet_config_from_state_dict

    files = sorted((Path(folder) / "unet").glob("*.safetensors"), key=lambda path: ".fp16." in path.name)
    if not files:
        raise InputError(f"--svd {folder} holds no unet/*.safetensors, as Stable Video Diffusion does for diffusers.")
    try:
        tensors = {name: tensor.float() for name, tensor in read_tensors(files[0]).items()}
        unet = DiceTalkUNet(**unet_config_from_state_dict(tensors))
        found = unet.load_state_dict(tensors, strict=False)
    except (Unreadable, KeyError, RuntimeError, IndexError) as error:
        raise InputError(f"{files[0]} is not the UNet of Stable Video Diffusion ({reason(error)}).") from error
    lacking = [name for name in found.missing_keys if ".attn2.processor." not in name]
    if lacking or found.unexpected_keys:
        raise InputError(
            f"{files[0]} is not the UNet of Stable Video Diffusion: {[*lacking, *found.unexpected_keys][0]}."
        )
    for name, parameter in unet.named_parameters():
        if ".to_v_ip." in name:
            parameter.data.zero_()
    return unet


def check_parts(parts):
    """InputError unless the parts fit each other and are what a loader will make of their files."""
    unet, emotion = parts["unet"], parts["emo_model"]
    width, channels = unet.config.cross_attention_dim, unet.config.block_out_channels
    sizes = {
        "the width of the audio projection's tokens (dim)": (parts["audio_linear"].dim, width),
        "the width of the emotion model's tokens (width)": (emotion.kv_tokens_linear.width, width),
        "the classifier's input (classifier_dims)": (emotion.classifier.fc1.in_features, channels[-1]),
        "the pose guider's output (conditioning_embedding_channels)": (
            parts["pose_guider"].conv_out.out_channels,
            channels[0],
        ),
        "the classifier's classes (classifier_dims)": (emotion.classifier.fc3.out_features, len(CLASSES)),
    }
    for what, (found, wanted) in sizes.items():
        if found != wanted:
            raise InputError(f"Sizes of the parts do not fit: {what} is {found}, and must be {wanted}.")
    read = build_part("unet", unet.state_dict())
    for name in ("num_attention_heads", "block_out_channels", "layers_per_block"):
        if tuple(_several(read.config[name], channels)) != tuple(_several(unet.config[name], channels)):
            raise InputError(
                f"unet's {name} is {unet.config[name]}, and would be read as {read.config[name]} from its weights "
                "(heads are 64 wide, or a narrower level's whole width)."
            )
    if emotion.attention.heads != 8:
        raise InputError(f"emo_model's heads are {emotion.attention.heads}, and leave no trace in its weights: use 8.")


def _several(value, channels):
    return value if isinstance(value, (list, tuple)) else (value,) * len(channels)


def build_objective(parts, options, kind: Callable[..., Parts] = Objective):
    """The objective with its weights frozen but for those that `options.trains` lets learn.

    Args:
        parts: the four, by name.
        options: TrainingOptions.
        kind: of objective.

    Raises:
        InputError: a LoRA without the package peft.
    """
    if options.trains == "lora":
        _add_lora(parts["unet"], options.rank, options.seed)
    objective = kind(**{part: parts[part] for part in PARTS}, options=options)
    for name, parameter in objective.named_parameters():
        parameter.requires_grad_(learns(name, options))
    objective.train()
    if options.checkpointing:
        objective.unet.enable_gradient_checkpointing()
    return objective


def learns(name, options):
    """Whether a weight of the objective, such as "unet.conv_in.weight", is to learn, and gets a gradient."""
    if options.trains == "lora":
        return ".lora_" in name
    if NO_GRADIENT.search(name):
        return False
    if name.startswith("emo_model.classifier."):
        return options.discrimination > 0
    if name.startswith("emo_model.codebook."):
        return options.bank != "full"  # the published code gives the bank's codes no gradient in full-bank mode
    return options.trains == "all" or not name.startswith("unet.") or ".attn2.processor." in name


def _add_lora(unet, rank, seed):
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError("--trains lora needs the package peft: `pip install peft`.") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_TARGETS), unet)


def fingerprint(objective) -> str:
    """Another text for other weights to start with."""
    digest = hashlib.sha256()
    for name, parameter in objective.named_parameters():
        digest.update(name.encode() + parameter.detach().flatten()[:16].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_parts(objective, folder) -> list[Path]:
    """Write the four parts in the published layout, the order of the classes where the classifier has learned, and a
    LoRA beside them if there is one.

    Args:
        objective: Objective on any device.
        folder: the checkpoint folder; files go to its DICE-Talk/.

    Returns:
        The files. Each is whole or, where this fails, as it was before.
    """
    written = []
    for part in PARTS:
        module = getattr(objective, part)
        tensors = _merged(module) if part == "unet" else module.state_dict()
        path = Path(folder) / WEIGHTS_FOLDER / f"{part}.pth"
        with written_beside(path) as beside:
            torch.save({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, beside)
        written.append(path)
    (Path(folder) / WEIGHTS_FOLDER / STUDENT_FILE).unlink(missing_ok=True)  # of what the folder held before
    lora = {name: tensor for name, tensor in objective.unet.state_dict().items() if ".lora_" in name}
    if lora:
        from safetensors.torch import save_file

        path = Path(folder) / LORA_FILE
        with written_beside(path) as beside:
            tensors = {
                f"diffusion_model.{_plain(name)}": each.detach().cpu().contiguous() for name, each in lora.items()
            }
            save_file(tensors, beside, {"format": "pt"})
        written.append(path)
    if learns("emo_model.classifier.fc3.weight", objective.options):  # by the labels' order, whatever it had before
        written.append(save_order(KNOWN_FROM_TRAINING, folder, objective.emo_model.classifier))
    return written


def _plain(name):
    return name.replace(".default.", ".")


def _merged(unet):
    """The UNet's tensors under their own names, a LoRA added to what it acts on."""
    tensors = {}
    for name, tensor in unet.state_dict().items():
        if ".lora_" in name:
            continue
        tensors[name.replace(".base_layer.", ".")] = tensor
    for name, module in unet.named_modules():
        if hasattr(module, "get_delta_weight"):
            tensors[f"{name}.weight"] = module.base_layer.weight + module.get_delta_weight("default")
    return tensors


def read_config(path):
    """The configuration of `new_parts` from a JSON file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--new {path} cannot be read as a configuration ({reason(error)}).") from error
