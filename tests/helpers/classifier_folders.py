"""Tiny classifier folders with random weights, as `save_pretrained` writes them, whose answer can be chosen."""

import json

import torch


def write_image_classifier(folder, labels, answer=None, **saving):
    """A tiny ViT; of a bias that makes it say `answer`, whatever it sees."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16
    )
    _save(ViTForImageClassification, config, folder, labels, answer, saving)
    preprocessor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def write_voice_classifier(folder, labels, answer=None, **saving):
    """A tiny Wav2Vec2; see `write_image_classifier`."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(10, 8),
        conv_kernel=(10, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=8,
    )
    _save(Wav2Vec2ForSequenceClassification, config, folder, labels, answer, saving)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def _save(kind, config, folder, labels, answer, saving):
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.num_labels = len(labels)
    model = kind(config)
    with torch.no_grad():
        model.classifier.weight.mul_(0.01)
        model.classifier.bias.zero_()
        if answer is not None:
            model.classifier.bias[labels.index(answer)] = 6.0
    model.save_pretrained(folder, **saving)
