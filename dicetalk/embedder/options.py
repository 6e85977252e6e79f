"""How a reference clip is read, as a value."""

from dataclasses import dataclass, fields
from pathlib import Path

from ..errors import InputError
from ..files import existing_folder

EVIDENCE = "evidence"


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """How the emotion of a reference clip is read.

    Args:
        embedder: "evidence", which needs no training, or the file of a trained embedder.
        landmarks: file of the clip's blendshapes.
        face_landmarker: file of MediaPipe's face_landmarker.task, which finds them.
        face_model, voice_model: folders of classifiers, with "evidence".
        timeline: whether the clip is followed over time; otherwise it is read as one emotion.
        chart: PNG file to draw what was read into.
    """

    embedder: str = EVIDENCE
    landmarks: str | None = None
    face_landmarker: str | None = None
    face_model: str | None = None
    voice_model: str | None = None
    timeline: bool = False
    chart: str | None = None

    @property
    def needs_whisper(self) -> bool:
        """Whether the embedder hears through the checkpoint's Whisper encoder."""
        return self.embedder != EVIDENCE

    def require_defaults(self, named, field) -> None:
        """InputError if anything is set, for a job without a clip; `field` is what would name one."""
        for option in fields(ClipOptions):
            if getattr(self, option.name) != option.default:
                raise InputError(
                    f"{named(option.name)} sets how a clip is read, and {named(field)} names none: "
                    f"write {named(field)} clip:FILE."
                )

    def open_clip(self, path, read=(), written=(), named=str):
        """The `dicetalk.reading.Clip`, and InputError for what is not there or does not fit, before any checkpoint.

        Args:
            path: the clip.
            read: other files that are read; none of them may be written to.
            written: (field, file) pairs of what is written besides the chart.
            named: how an error calls a field.
        """
        from ..reading.files import open_clip

        if self.chart and Path(self.chart).suffix.lower() != ".png":
            raise InputError(f"{named('chart')} is {self.chart}: the chart is a PNG file; end its name with .png.")
        if self.needs_whisper and not Path(self.embedder).is_file():
            raise InputError(
                f"{named('embedder')} is {self.embedder}: no such file; give a trained embedder, or {EVIDENCE}."
            )
        sources = [path, self.landmarks, self.face_landmarker, self.embedder, *read]
        for field, target in (("chart", self.chart), *written):
            if target:
                _check_target(named(field), Path(target), [Path(source) for source in sources if source])
        return open_clip(path, self.landmarks, self.face_landmarker)

    def read_clip(self, clip, priors, whisper=None, device="cpu", on_progress=None):
        """The `dicetalk.reading.Reading` of an open clip; the chart is drawn where there is to be one.

        Args:
            clip: as `open_clip` returns it.
            priors: name → `Emotion`, which the reading is a mix of.
            whisper: folder of the Whisper encoder, for a trained embedder.
            device: where the models compute.
            on_progress: called with the seconds done and those of the whole clip.
        """
        from ..media.image import save_png
        from .choice import choose_embedder

        embedder = choose_embedder(
            self.embedder, whisper=whisper, face_model=self.face_model, voice_model=self.voice_model, device=device
        )
        reading = embedder.read(clip, priors, timeline=self.timeline, on_progress=on_progress)
        if self.chart:
            from ..reading.chart import chart

            save_png(chart(reading, clip.name), self.chart)
        return reading


def _check_target(name, target, read):
    """InputError for a file that could not be written, or is one of those that are read."""
    import tempfile

    try:
        if target.is_dir():
            raise InputError(f"{name} is {target}, a folder: name a file in it.")
        for given in read:
            if target.exists() and given.exists() and target.samefile(given):
                raise InputError(f"{name} is {target}, a file that is read: write to another one.")
        with tempfile.TemporaryFile(dir=existing_folder(target.absolute().parent)):
            pass
    except OSError as error:
        raise InputError(f"{name} is {target}, which cannot be written ({error.strerror or error}).") from error
