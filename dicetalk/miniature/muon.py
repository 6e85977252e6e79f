"""Muon, PyTorch's optimizer for matrices, for networks that have convolutions and biases too."""

import torch

from ..errors import InputError

_ADAMW_SHARE = 0.25  # of Muon's learning rate, for weights that are no matrices
_ADAMW_BETAS = (0.9, 0.95)


def require_muon() -> None:
    """InputError where PyTorch is older than its Muon."""
    if not hasattr(torch.optim, "Muon"):
        raise InputError(
            f"Making a miniature needs PyTorch 2.9 or newer, for its optimizer Muon; this is {torch.__version__}."
        )


class Muon(torch.optim.Optimizer):
    """PyTorch's Muon for the weights of linear layers and convolutions, and its AdamW for all others, as one optimizer.

    Muon (Jordan et al. 2024) takes matrices alone; the kernel of a convolution is one, (out, in × its places).

    Args:
        parameters: the weights.
        lr: Muon's, in AdamW's measure (Liu et al. 2025, section 2.2); AdamW has a quarter of it.
        weight_decay: of both.
    """

    def __init__(self, parameters, lr, weight_decay=0.0):
        matrices, others = [], []
        for each in parameters:
            (matrices if each.ndim > 1 and min(each.flatten(1).shape) > 1 else others).append(each)
        super().__init__([{"params": matrices}, {"params": others}], {"lr": lr})
        self._flat = [torch.nn.Parameter(each.detach().flatten(1).clone()) for each in matrices]
        self._muon = torch.optim.Muon([{"params": self._flat}], lr, weight_decay, adjust_lr_fn="match_rms_adamw")
        groups = [{"params": others}]  # PyTorch takes an empty group, and no empty list
        self._adamw = torch.optim.AdamW(groups, lr * _ADAMW_SHARE, _ADAMW_BETAS, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure=None):
        """A step; of weights without a gradient none."""
        of_matrices, of_others = self.param_groups
        self._muon.param_groups[0]["lr"] = of_matrices["lr"]
        self._adamw.param_groups[0]["lr"] = of_others["lr"] * _ADAMW_SHARE
        for flat, own in zip(self._flat, of_matrices["params"], strict=True):
            flat.copy_(own.flatten(1))
            flat.grad = None if own.grad is None else own.grad.flatten(1)
        self._muon.step()
        self._adamw.step()
        for flat, own in zip(self._flat, of_matrices["params"], strict=True):
            own.copy_(flat.view(own.shape))

    def state_dict(self):
        """PyTorch's form: the state of each weight by its number, matrices first."""
        others = self._adamw.state_dict()["state"].items()
        state = self._muon.state_dict()["state"] | {len(self._flat) + number: each for number, each in others}
        return {**super().state_dict(), "state": state}

    def load_state_dict(self, state_dict):
        """Take over what `state_dict` gave."""
        super().load_state_dict({**state_dict, "state": {}})
        count = len(self._flat)
        first = {number: each for number, each in state_dict["state"].items() if number < count}
        rest = {number - count: each for number, each in state_dict["state"].items() if number >= count}
        for inner, state in ((self._muon, first), (self._adamw, rest)):
            inner.load_state_dict({**inner.state_dict(), "state": state})
