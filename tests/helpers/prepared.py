"""Prepared clips to train on, made of numbers: each emotion moves its own way, so that there is something to learn."""

import torch

from dicetalk.training.dataset import SHARD, Record, write_shard

EMOTIONS = ("happy", "sad", "neutral")
SIZE = 4, 4
WIDTH = 8
CONFIG = {
    "unet": {
        "block_out_channels": [32, 32],
        "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
        "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
        "num_attention_heads": [1, 1],
        "layers_per_block": 1,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24,
        "cross_attention_dim": WIDTH,
    },
    "pose_guider": {"conditioning_embedding_channels": 32, "block_out_channels": [8, 8, 8, 8]},
    "audio_linear": {"width": 16, "hidden": 8, "tokens": 2, "dim": WIDTH},
    "emo_model": {
        "tokens": 2,
        "width": WIDTH,
        "hidden": 8,
        "codes": 6,
        "code_dim": WIDTH,
        "classifier_dims": [32, 16, 16, 22],
    },
}


def write_clips(folder, frames=6, people=("ann", "bob"), gaussian=True, level=2, shift=0.0):
    """Two shards of clips in `folder`, which is given back."""
    random = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    shards = []
    for person in people:
        clips = []
        for number, emotion in enumerate(EMOTIONS):
            face, course = 3 * normal(1, 4, *SIZE), torch.linspace(-1, 1, frames)[:, None, None, None]
            parts = {
                "latents": (face + (number - 1) * course + shift).half(),
                "clip": normal(1, WIDTH).expand(frames, -1).half(),
                "audio": normal(frames, 10, 5, 16).half(),
                "face_mask": torch.full((8 * SIZE[0], 8 * SIZE[1]), 255, dtype=torch.uint8),
            }
            if gaussian:
                parts["gaussian"] = torch.stack([torch.full((256,), float(number)), torch.full((256,), 0.1)])
            record = Record(f"{person}/{emotion}", emotion, level, person, "train", frames, SIZE, gaussian)
            clips.append((record, parts))
        shards.append(clips)
    for number, clips in enumerate(shards):
        write_shard(folder / SHARD.format(number), clips)
    return folder


def priors():
    return {name: torch.full((256,), 0.5 * number) for number, name in enumerate(EMOTIONS)}
