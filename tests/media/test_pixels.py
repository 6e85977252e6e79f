import numpy as np
import pytest
from PIL import Image

from dicetalk.media.pixels import at_resolution


@pytest.mark.parametrize("size, shape", [((101, 77), (76, 100, 3)), ((320, 640), (640, 320, 3)), ((1, 1), (2, 2, 3))])
def test_frames_keep_a_resolution(size, shape):
    dark, light = np.full((64, 48, 3), 0.25, np.float32), np.full((64, 48, 3), 200, np.uint8)
    first, second, third = at_resolution([dark, light, Image.new("RGB", (48, 64), "white")], size)
    assert first.shape == second.shape == third.shape == shape and first.dtype == np.uint8
    assert (first == 64).all() and (second == 200).all() and (third == 255).all()
