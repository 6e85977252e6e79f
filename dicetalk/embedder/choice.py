"""Choosing an embedder by name: the evidence embedder, or a trained one from a file."""

from ..errors import InputError


def choose_embedder(choice="evidence", whisper=None, face_model=None, voice_model=None, device="cpu"):
    """The embedder of that name.

    Args:
        choice: "evidence", or the path of a trained embedder's .safetensors file.
        whisper: for a trained embedder, the Whisper encoder or its folder; see `dicetalk.embedder.load_embedder`.
        face_model, voice_model: for "evidence"; see `evidence.Evidence`.
        device: where the models compute.
    """
    if str(choice) == "evidence":
        from ..reading.evidence import Evidence

        return Evidence(face_model, voice_model, device)
    if face_model or voice_model:
        raise InputError("A face or voice model goes with the embedder evidence; a trained one reads by itself.")
    from .files import load_embedder

    return load_embedder(choice, whisper, device)
