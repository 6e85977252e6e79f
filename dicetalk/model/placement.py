"""Where a module's weights are and of what type, as diffusers' pipelines ask of every part."""


class Placed:
    """Adds `device` and `dtype`, those of the first weight, to a `torch.nn.Module`."""

    @property
    def device(self):
        return next(self.parameters()).device

    @property
    def dtype(self):
        return next(self.parameters()).dtype
