"""Bars of a work in parts, one after the other."""


class Progress:
    """One bar for each part of the work."""

    def __init__(self):
        self._what, self._bar = None, None

    def tell(self, what, done, total, loss=None):
        """`loss` is shown beside the bar, unless it is None."""
        from tqdm import tqdm

        if what != self._what:
            self.close()
            self._what, self._bar = what, tqdm(total=total, desc=what, disable=None)
        if loss is not None:
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self):
        if self._bar is not None:
            self._bar.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
