"""The optimizers that training may use."""

import torch

from ..errors import InputError

OPTIMIZERS = ("adamw", "muon")
_ADAMW_SHARE = 0.25  # of Muon's learning rate, for weights that are no matrices
_BETAS = (0.9, 0.95)  # of that AdamW


def new_optimizer(kind, parameters, rate, decay):
    """An optimizer of some weights.

    Args:
        kind: one of OPTIMIZERS.
        parameters: the weights.
        rate: learning rate.
        decay: weight decay.

    Raises:
        InputError: PyTorch is older than its Muon.
    """
    return (Muon if kind == "muon" else torch.optim.AdamW)(list(parameters), lr=rate, weight_decay=decay)


class Muon(torch.optim.Optimizer):
    """PyTorch's Muon for the weights of linear layers and convolutions, and its AdamW for all others, as one optimizer.

    Muon (Jordan et al. 2024) takes matrices alone; the kernel of a convolution is one, (out, in × its places). Both
    have a state of their own; those of AdamW are numbered after Muon's.

    Args:
        parameters: the weights.
        lr: Muon's, in AdamW's measure (Liu et al. 2025, section 2.2); AdamW has a quarter of it.
        weight_decay: of both.

    Raises:
        InputError: PyTorch is older than its Muon.
    """

    def __init__(self, parameters, lr, weight_decay=0.0):
        if not hasattr(torch.optim, "Muon"):
            raise InputError(f"The optimizer Muon needs PyTorch 2.9 or newer, and this is {torch.__version__}.")
        parameters = list(parameters)
        matrices = [each for each in parameters if each.ndim > 1 and min(each.flatten(1).shape) > 1]
        chosen = set(map(id, matrices))
        others = [each for each in parameters if id(each) not in chosen]
        groups = [{"params": some} for some in (matrices, others) if some]
        super().__init__(groups, {"lr": lr})
        self._matrices = matrices
        self._flat = [torch.nn.Parameter(each.detach().flatten(1).clone()) for each in matrices]
        self._both = []
        if matrices:
            self._both.append(
                torch.optim.Muon(self._flat, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        if others:
            self._both.append(torch.optim.AdamW(others, lr * _ADAMW_SHARE, _BETAS, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        """A step; of weights without a gradient none."""
        for group, inner in zip(self.param_groups, self._both, strict=True):
            share = 1.0 if isinstance(inner, torch.optim.Muon) else _ADAMW_SHARE
            inner.param_groups[0]["lr"] = group["lr"] * share
        for flat, own in zip(self._flat, self._matrices, strict=True):
            flat.copy_(own.flatten(1))
            flat.grad = None if own.grad is None else own.grad.flatten(1)
        for inner in self._both:
            inner.step()
        for flat, own in zip(self._flat, self._matrices, strict=True):
            own.copy_(flat.view(own.shape))

    def state_dict(self):
        kept = super().state_dict()
        first = {} if not self._flat else self._both[0].state_dict()["state"]
        rest = {} if len(self._both) < 2 and self._flat else self._both[-1].state_dict()["state"]
        kept["state"] = {**first, **{number + len(self._flat): each for number, each in rest.items()}}
        return kept

    def load_state_dict(self, state_dict):
        super().load_state_dict({**state_dict, "state": {}})
        count = len(self._flat)
        for inner in self._both:
            first, end = (0, count) if isinstance(inner, torch.optim.Muon) else (count, None)
            state = {
                number - first: each
                for number, each in state_dict["state"].items()
                if number >= first and (end is None or number < end)
            }
            inner.load_state_dict({**inner.state_dict(), "state": state})
