import av
import pytest
from clips import write_timed

from dicetalk.media.clock import offset, origin, video_track


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts"])
@pytest.mark.parametrize("pictures, sound", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.5)])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_a_track_that_starts_late_keeps_its_time(tmp_path, suffix, pictures, sound, b_frames):
    path = write_timed(tmp_path / f"clip.{suffix}", pictures, sound, b_frames=b_frames)
    with av.open(str(path)) as container:
        assert offset(video_track(container)) == pytest.approx(pictures, abs=0.1)
        assert offset(container.streams.audio[0]) == pytest.approx(sound, abs=0.1)
        first = next(container.decode(video_track(container)))
        assert first.time - origin(container) == pytest.approx(pictures, abs=0.1)
