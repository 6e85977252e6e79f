"""The pipeline of an engine: what depends on the portrait or the emotion alone is computed once."""

import threading

from ..emotion.timeline import EmotionTimeline
from ..pipeline import DiceTalkPipeline
from ..sampling.resume import digest


class SharingPipeline(DiceTalkPipeline):
    """A `DiceTalkPipeline` that keeps the encodings of portraits and emotions; decodes in another thread if asked."""

    _quiet = True

    def share(self, once, windows) -> None:
        """Where values are kept, see `dicetalk.batch.engine.Kept`, and what counts window steps."""
        self.once, self.windows = once, windows
        # The encoder changes its precision while it encodes, which the decoder must not see.
        self.vae_lock = threading.Lock()

    def progress_bar(self, iterable=None, total=None):
        return self.windows.clip()

    def decode(self, *args, **kwargs):
        with self.vae_lock:
            chunks = super().decode(*args, **kwargs)
        while True:
            with self.vae_lock:
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    def _encode_latent(self, image, device):
        def encode():
            with self.vae_lock:
                return super(SharingPipeline, self)._encode_latent(image, device)

        return self.once(("latent", *_of(image)), encode)

    def _encode_frames(self, frames, device):
        with self.vae_lock:
            return super()._encode_frames(frames, device)

    def _encode_clip(self, image, device):
        return self.once(("clip", *_of(image)), lambda: super(SharingPipeline, self)._encode_clip(image, device))

    def _encode_pose(self, face_mask):
        key = "pose", tuple(face_mask.shape), digest(face_mask.float().cpu().numpy())
        return self.once(key, lambda: super(SharingPipeline, self)._encode_pose(face_mask))

    def _encode_emotion(self, emotion, frames, device, dtype):
        over_time = isinstance(emotion, EmotionTimeline)
        key = ("timeline", emotion.digest(), frames) if over_time else ("emotion", emotion.digest())
        return self.once(key, lambda: super(SharingPipeline, self)._encode_emotion(emotion, frames, device, dtype))


def _of(image):
    return image.size, digest(image.tobytes())
