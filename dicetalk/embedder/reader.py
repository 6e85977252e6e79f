"""Reading a reference clip with a trained embedder: the interface of `dicetalk.reading.clip`."""

from collections import deque
from dataclasses import replace

import numpy as np
import torch

from ..emotion.options import NAMES
from ..errors import InputError
from ..reading.clip import NoCue, Reading
from .features import pieces, whisper_digest
from .model import RATE

HOP = 12  # tokens from one window to the next: 0.96 s
_TOLERANCE = 0.05  # of the priors' mean distance to neutral; a timeline's keys that others show as well are left out
_FOREIGN = 0.5  # distance, of a prior to that of the training, from which on it is another one
CUES = {"face": (True, False), "voice": (False, True), "combined": (True, True)}


def posterior(mean, anchors, temperature):
    """Weights of the emotions, (batch, emotions): softmax of minus the squared distance to each prior / temperature.

    The temperature is fitted on held-out clips (Guo et al. 2017, "On calibration of modern neural networks"): in 256
    dimensions, likelihoods of the Gaussian itself would always be all or nothing.
    """
    return torch.softmax(-(mean[:, None] - anchors[None]).square().sum(-1) / temperature, dim=-1)


class LearnedEmbedder:
    """A trained embedder; see `files.load_embedder`.

    Args:
        file: `files.EmbedderFile`.
        name: what to call it in the emotion's provenance.
        whisper, device: see `files.load_embedder`.
    """

    def __init__(self, file, name, whisper=None, device="cpu"):
        self.temperature, self.use, self.device = file.temperature, file.use, device
        self._anchors, self._neutral = file.model.anchors.double().numpy(), file.model.neutral.double().numpy()
        residuals = self._anchors - self._neutral
        directions = np.linalg.svd(residuals, full_matrices=False)[2][: len(residuals) - 1]
        self._axes = directions.T / max(np.linalg.norm(residuals, axis=1).mean(), 1e-9)  # a file may hold equal priors
        self.model = file.model.to(device)
        self.provenance = file.provenance
        self.name, self._digest, self._whisper = name, file.whisper, whisper

    def read(self, clip, priors, timeline=False, on_progress=None):
        """Read a clip; arguments, result and errors are those that `dicetalk.reading.clip` states.

        The clip is read in windows as long as those of the training (4 s), 0.96 s apart; a shorter one in one window.
        The emotion of the whole clip is the Gaussian with the mean and the variance of the windows' mixture. Where
        the face is missing the voice is read, and the other way round; silence counts as no voice. A cue that the
        embedder was not trained with is not read, which a note says. Music counts as a voice, which the training did
        not prepare it for. One frame is enough, and holds for as long as there is sound.

        Returns:
            Reading: tracks "face" and "voice", what would have been read from that cue alone, and "combined".
        """
        from ..reading.evidence import sureness

        notes = []
        clip = self._known(clip, notes)
        encoder = self._encoder(clip, notes)
        if clip.blendshapes is None and clip.frames is not None and self.use != "audio":
            notes.append("The face was not read: that takes face landmarks.")
        times, rows, course, sums, total = [], [], [], None, 0.0

        def tell(seconds):
            if on_progress is not None:
                on_progress(min(seconds, clip.seconds) if clip.seconds else seconds, clip.seconds)

        for seconds, window in self._windows(clip, encoder, tell):
            tracks, code, weight = self._embed(window)
            times.append(seconds)
            rows.append(tracks)
            if weight:
                mean, variance = self._gaussian(code)
                moments = weight * np.stack([mean, variance + mean**2])
                sums, total = moments if sums is None else sums + moments, total + weight
                if timeline:
                    course.append((len(times) - 1, code, self._place(mean)))
        notes = [*clip.notes(), *notes]
        if sums is None:
            raise NoCue(
                " ".join([f"Nothing in {clip.name} shows an emotion: no face is seen, no voice heard.", *notes])
            )
        tracks = {cue: np.stack([row[cue] for row in rows]) for cue in CUES}
        for cue, title in (("face", "No face was seen"), ("voice", "The sound is silent")):
            there = ~np.isnan(tracks[cue][:, 0])
            if not there.any():
                del tracks[cue]
            if not there.all() and (clip.blendshapes if cue == "face" else encoder) is not None:
                notes.append(f"{title}{'' if not there.any() else ' in a part of the clip'}.")
        self._compare(priors, notes)
        times = np.array(times)
        weights = {cue: np.nanmean(track, axis=0) for cue, track in tracks.items()}
        if timeline:
            emotion = self._follow(times, tracks["combined"], course, clip.name)
        else:
            mean, square = sums / total
            emotion = self._emotion(mean, square - mean**2, weights["combined"], clip.name)
        return Reading(
            emotion, times, tracks, weights, {cue: sureness(each) for cue, each in tracks.items()}, tuple(notes)
        )

    def _known(self, clip, notes):
        """The clip without the cue that the embedder was not trained with."""
        if self.use == "visual" and clip.audio is not None:
            notes.append(f"The voice was not read: the embedder {self.name} was trained on faces alone.")
            return replace(clip, audio=None)
        if self.use == "audio" and (clip.blendshapes is not None or clip.frames is not None):
            notes.append(f"The face was not read: the embedder {self.name} was trained on voices alone.")
            return replace(clip, blendshapes=None)
        return clip

    def _encoder(self, clip, notes):
        """Whisper's encoder, if there is sound to hear with it."""
        if clip.audio is None:
            return None
        from ..checkpoints.finding import resolve_checkpoint
        from ..checkpoints.whisper import load_whisper_encoder

        if self._whisper is None:
            try:
                self._whisper = resolve_checkpoint().folder("whisper")
            except InputError as error:
                if clip.blendshapes is None:
                    raise
                notes.append(f"The voice was not read, as Whisper is missing: {error}")
                return None
        if not hasattr(self._whisper, "conv1"):
            self._whisper = load_whisper_encoder(self._whisper)
        width = self._whisper.config.d_model
        if width != self.model.config.audio_features or self._digest not in ("", whisper_digest(self._whisper)):
            raise InputError(
                f"The embedder {self.name} was trained with another Whisper encoder (states of "
                f"{self.model.config.audio_features} numbers) than this one ({width}): use the checkpoint that it was "
                "trained with, or a clip without sound."
            )
        return self._whisper.to(self.device)

    def _windows(self, clip, encoder, tell):
        """Yields (seconds of its middle, the window's tokens)."""
        size = self.model.config.tokens
        held, first, fresh = deque(), 0, 0  # tokens of the windows to come; `fresh` of them are in no window yet
        for visual, visual_mask, audio, audio_mask in pieces(clip, encoder, tell):
            if encoder is None:
                audio = np.zeros((len(audio), self.model.config.audio_features), np.float32)
            for token in zip(visual, visual_mask, audio, audio_mask):
                held.append(token)
                fresh += 1
                if len(held) == size:
                    yield (first + size / 2) / RATE, held
                    fresh = 0
                    for _ in range(min(HOP, size)):
                        held.popleft()
                        first += 1
        if fresh:
            yield (first + len(held) / 2) / RATE, held

    @torch.inference_mode()
    def _embed(self, window):
        """cue → (8,) weights; the code of all cues, (code,) float32; how many tokens have any cue."""
        visual, visual_mask, audio, audio_mask = (torch.from_numpy(np.stack(part))[None] for part in zip(*window))
        tracks = {}
        for cue, (see, hear) in CUES.items():
            masks = visual_mask & see, audio_mask & hear
            tracks[cue] = np.full(len(NAMES), np.nan)
            if masks[0].any() or masks[1].any():
                tokens = (visual, masks[0], audio, masks[1])
                code = self.model.encode(*(part.to(self.device) for part in tokens))
                mean = self.model.gaussian(code)[0].cpu().double()
                shares = posterior(mean, torch.from_numpy(self._anchors), self.temperature)[0].numpy()
                tracks[cue] = np.zeros(len(NAMES))
                tracks[cue][[NAMES.index(name) for name in self.model.config.emotions]] = shares
        weight = int((visual_mask | audio_mask).sum())
        return tracks, code[0].cpu().numpy() if weight else None, weight

    @torch.inference_mode()
    def _gaussian(self, code):
        """Mean and variance, (256,) float64, of a window's code."""
        mean, log_variance = self.model.gaussian(torch.from_numpy(code).to(self.device))
        return mean.cpu().double().numpy(), log_variance.cpu().double().exp().numpy()

    def _place(self, mean):
        """Where a mean is along the directions in which the priors differ, in units of their distance to neutral."""
        return (mean - self._neutral) @ self._axes

    def _emotion(self, mean, variance, weights, clip_name):
        from ..emotion.value import Emotion

        name = NAMES[int(np.nanargmax(weights))]
        provenance = f"read from {clip_name} by the embedder {self.name}; nearest to {name}"
        return Emotion(mean, np.sqrt(np.maximum(variance, 0)), name=clip_name, provenance=provenance)

    def _follow(self, times, track, course, clip_name):
        """The timeline with a key where the means turn; windows without any cue are bridged.

        The weights would not do: they are all or nothing long before an emotion is as strong as it gets.

        Args:
            times: (windows,) seconds.
            track: (windows, 8) weights.
            course: (number, code, place) of the windows with a cue; a Gaussian would take 32 times a code's memory.
        """
        from ..emotion.timeline import EmotionTimeline, TimelineKey
        from ..reading.evidence import few_turns

        numbers, codes, places = zip(*course)
        keys = []
        for row in few_turns(times[list(numbers)], np.stack(places), _TOLERANCE):
            number = numbers[row]
            emotion = self._emotion(*self._gaussian(codes[row]), track[number], clip_name)
            keys.append(TimelineKey(float(times[number]), emotion))
        return EmotionTimeline(
            tuple(keys), name=clip_name, provenance=f"follows {clip_name} by the embedder {self.name}"
        )

    def _compare(self, priors, notes):
        for name, anchor in zip(self.model.config.emotions, self._anchors):
            if name in priors and np.linalg.norm(priors[name].mean.numpy() - anchor) > _FOREIGN:
                notes.append(
                    f"The embedder {self.name} was trained towards another prior of {name} than this checkpoint's."
                )
                return
