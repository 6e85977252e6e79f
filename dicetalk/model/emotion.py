"""The emotion model (published file ``emo_model.pth``): a 256-d emotion in, 32 tokens for the UNet out.

The emotion is expanded to query tokens; the codes of the Emotion Bank are expanded to key and value tokens; one
multi-head attention joins them. The codebook also serves retrieval: the nearest codes to an emotion.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..emotion.options import FULL_BANK, BankOptions
from .placement import Placed

COMMITMENT = 0.25  # weight of the commitment loss, as published
CHUNK = 16  # emotions whose attention is held in memory at a time


class TokenExpander(nn.Module):
    """Linear-ReLU-linear-ReLU-linear-LayerNorm: (N, in_dim) to (N, tokens, width)."""

    def __init__(self, in_dim, hidden, tokens, width):
        super().__init__()
        self.tokens, self.width = tokens, width
        self.proj1 = nn.Linear(in_dim, hidden)
        self.proj2 = nn.Linear(hidden, hidden)
        self.proj3 = nn.Linear(hidden, tokens * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        x = self.proj3(F.relu(self.proj2(F.relu(self.proj1(x)))))
        return self.norm(x.unflatten(-1, (self.tokens, self.width)))


class Codebook(nn.Module):
    """The Emotion Bank's codes, and the map from an emotion into their space."""

    def __init__(self, in_dim, codes, code_dim):
        super().__init__()
        self.size = codes
        self.fc = nn.Linear(in_dim, code_dim)
        self.codebook = nn.Embedding(codes, code_dim)

    def ranking(self, mean):
        """Indices of all codes, nearest first: (N, in_dim) to (N, codes). Distances are squared and in float32."""
        codes = self.codebook(torch.arange(self.size, device=mean.device)).float()
        placed = self.fc(mean).float()
        distances = [(part[:, None] - codes).square().sum(-1) for part in placed.split(CHUNK)]
        return torch.cat(distances).sort(dim=-1, stable=True).indices


class BankAttention(nn.Module):
    """The three projections of the attention; it has no output projection and no residual."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.fc_q = nn.Linear(width, width)
        self.fc_k = nn.Linear(width, width)
        self.fc_v = nn.Linear(width, width)

    def split(self, x):
        """(N, tokens, width) to (N, heads, tokens, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class EmotionClassifier(nn.Module):
    """Scores the UNet's mid-block features: (N, channels, h, w) to (N, classes)."""

    def __init__(self, channels, hidden1, hidden2, classes):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden1)
        self.fc2 = nn.Linear(hidden1, hidden2)
        self.fc3 = nn.Linear(hidden2, classes)

    def forward(self, features):
        pooled = features.mean(dim=(-2, -1))
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(pooled)))))


class EmotionModel(Placed, nn.Module):
    """Emotion Bank, its attention and the emotion classifier; the defaults are the released sizes.

    Calling the model is `tokens`. All of it runs on the device and in the type of what it is given, which
    must be those of its weights unless the layers cast themselves.

    Args:
        emotion_dim: size of an emotion's mean.
        tokens: tokens per emotion, and per code.
        width: width of a token.
        hidden: width between the layers of the two expanders.
        codes: number of codes in the bank.
        code_dim: width of a code.
        heads: attention heads; `width` is a multiple of it.
        classifier_dims: widths of the classifier, from its input to its 22 classes (as MEAD has 7 emotions in 3
            levels, and neutral; the order of the classes is not documented).
    """

    def __init__(
        self,
        emotion_dim=256,
        tokens=32,
        width=1024,
        hidden=1024,
        codes=64,
        code_dim=1024,
        heads=8,
        classifier_dims=(1280, 512, 256, 22),
    ):
        super().__init__()
        self.emotion_dim = emotion_dim
        self.emo_linear = TokenExpander(emotion_dim, hidden, tokens, width)
        self.kv_tokens_linear = TokenExpander(code_dim, hidden, tokens, width)
        self.codebook = Codebook(emotion_dim, codes, code_dim)
        self.attention = BankAttention(width, heads)
        self.classifier = EmotionClassifier(*classifier_dims)

    @staticmethod
    def config_from_state_dict(state_dict):
        """The constructor's arguments, from the shapes of a state dict (tensors, or anything with `.shape`).

        The number of heads leaves no trace in the shapes; it is the released 8.
        """
        shape = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
        hidden, emotion_dim = shape["emo_linear.proj1.weight"]
        width = shape["emo_linear.norm.weight"][0]
        codes, code_dim = shape["codebook.codebook.weight"]
        return {
            "emotion_dim": emotion_dim,
            "tokens": shape["emo_linear.proj3.weight"][0] // width,
            "width": width,
            "hidden": hidden,
            "codes": codes,
            "code_dim": code_dim,
            "classifier_dims": (
                shape["classifier.fc1.weight"][1],
                shape["classifier.fc1.weight"][0],
                shape["classifier.fc2.weight"][0],
                shape["classifier.fc3.weight"][0],
            ),
        }

    def forward(self, mean, bank: BankOptions = FULL_BANK, on_chunk=None):
        """The tokens of emotions; the bank's keys and values are computed once for all of them.

        Args:
            mean: (N, emotion_dim) means of emotions.
            bank: which codes are attended to, and how sharply.
            on_chunk: called as `on_chunk(done, N)` after every few emotions; what it raises ends the work.

        Returns:
            (N, tokens, width).
        """
        codes, allowed = self._attended(mean, bank)
        keys, values = self._keys_and_values(codes, mean.dtype)
        results = []
        for start in range(0, len(mean), CHUNK):
            queries = self._queries(mean[start : start + CHUNK])
            mask = None if allowed is None else allowed[start : start + CHUNK, None, None]
            attended = F.scaled_dot_product_attention(
                queries,
                keys.expand(len(queries), -1, -1, -1),
                values.expand(len(queries), -1, -1, -1),
                attn_mask=mask,
                scale=self._scale(queries, bank),
            )
            results.append(attended.transpose(1, 2).flatten(2))
            if on_chunk is not None:
                on_chunk(min(start + CHUNK, len(mean)), len(mean))
        return torch.cat(results)

    def tokens(self, mean, bank: BankOptions = FULL_BANK):
        """(N, emotion_dim) means to (N, tokens, width); the same as calling the model."""
        return self(mean, bank)

    def unconditional(self, bank: BankOptions = FULL_BANK, device=None, dtype=None):
        """(1, tokens, width): the tokens of no emotion, which are those of a mean of zeros.

        `device` and `dtype` are those of the weights when None.
        """
        device, dtype = self.placement(device, dtype)
        return self(torch.zeros(1, self.emotion_dim, device=device, dtype=dtype), bank)

    def placement(self, device=None, dtype=None):
        """Device and type of a computation: those given, or those of the weights where None."""
        if device is None or dtype is None:
            weight = next(self.parameters())
            device, dtype = device or weight.device, dtype or weight.dtype
        return device, dtype

    def training_tokens(self, z, retrieval, masked=None):
        """Tokens and the vector-quantization loss, with the gradients of training (published ``emo_model``).

        Args:
            z: (N, emotion_dim) sampled emotions.
            retrieval: keys and values of the nearest code alone, its gradient passed straight through to z; else those
                of the whole bank, to whose codes no gradient goes, as published: they are learned by retrieval alone.
            masked: (N,) bool, the emotions to drop: their z and their retrieved code are zero, and the whole bank stays
                visible in full-bank mode. They still count in the loss. None drops none.

        Returns:
            (N, tokens, width), and the loss: mse(code, stop z') + 0.25 mse(stop code, z') with z' the emotion in the
            codes' space (van den Oord et al. 2017, equation 3); 0 in full-bank mode.
        """
        keep = None if masked is None else (~masked)[:, None].to(z.dtype)
        seen = z if keep is None else z * keep
        if not retrieval:
            keys, values = self._keys_and_values(torch.arange(self.codebook.size, device=z.device), z.dtype, fixed=True)
            return self._attend(seen, keys, values), z.new_zeros(())
        placed = self.codebook.fc(z)
        code = self.codebook.codebook(self.nearest_code(z)).to(placed.dtype)
        loss = F.mse_loss(code, placed.detach()) + COMMITMENT * F.mse_loss(code.detach(), placed)
        code = placed + (code - placed).detach()
        own = self.kv_tokens_linear(code if keep is None else code * keep)
        keys, values = self.attention.split(self.attention.fc_k(own)), self.attention.split(self.attention.fc_v(own))
        return self._attend(seen, keys, values), loss

    def nearest_code(self, mean):
        """The nearest code's index: (N, emotion_dim) to (N,) integers. Of equally near codes the first wins."""
        return self.codebook.ranking(mean)[:, 0]

    def usage(self, mean, bank: BankOptions = FULL_BANK, on_chunk=None):
        """How much each code is attended to: the attention on its tokens, summed, averaged over the queries.

        Arguments as for a call of the model.

        Returns:
            (N, heads, codes) in float32; each head's codes sum to 1. Average over the heads for one number per code.
        """
        codes, allowed = self._attended(mean, bank)
        keys = self._keys_and_values(codes, mean.dtype)[0]
        usage = torch.zeros(len(mean), self.attention.heads, self.codebook.size, device=mean.device)
        for start in range(0, len(mean), CHUNK):
            queries = self._queries(mean[start : start + CHUNK])
            logits = (queries @ keys.transpose(-1, -2)).float() * self._scale(queries, bank)
            if allowed is not None:
                logits = logits.masked_fill(~allowed[start : start + CHUNK, None, None], -math.inf)
            attention = logits.softmax(-1).unflatten(-1, (len(codes), -1))
            usage[start : start + CHUNK, :, codes] = attention.sum(-1).mean(2)
            if on_chunk is not None:
                on_chunk(min(start + CHUNK, len(mean)), len(mean))
        return usage

    def classify(self, features):
        """Scores of the 22 classes: mid-block features (N, channels, h, w) to (N, classes)."""
        return self.classifier(features)

    def _attended(self, mean, bank):
        """The codes that any of the emotions attends to (K,), and which key tokens each may see (N, K × tokens).

        The second is None when every emotion sees all of them.
        """
        count = bank.code_count(self.codebook.size)
        if count == self.codebook.size:
            return torch.arange(count, device=mean.device), None
        chosen = self.codebook.ranking(mean)[:, :count]
        codes = chosen.unique()
        if len(codes) == count:
            return codes, None
        allowed = (chosen[:, :, None] == codes).any(1)
        return codes, allowed.repeat_interleave(self.kv_tokens_linear.tokens, dim=1)

    def _attend(self, mean, keys, values):
        """(N, tokens, width) of emotions (N, emotion_dim); one set of keys and values for all of them, or one each."""
        queries = self._queries(mean)
        keys, values = (each.expand(len(queries), -1, -1, -1) for each in (keys, values))
        return F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)

    def _keys_and_values(self, codes, dtype, fixed=False):
        """Each (1, heads, K × tokens, width / heads), of the K given codes; no gradient goes to `fixed` ones."""
        values = self.codebook.codebook(codes)
        expanded = self.kv_tokens_linear((values.detach() if fixed else values).to(dtype)).flatten(0, 1)[None]
        return self.attention.split(self.attention.fc_k(expanded)), self.attention.split(self.attention.fc_v(expanded))

    def _queries(self, mean):
        return self.attention.split(self.attention.fc_q(self.emo_linear(mean)))

    @staticmethod
    def _scale(queries, bank):
        return 1.0 / (math.sqrt(queries.shape[-1]) * bank.temperature)
