"""How the miniature is made, and the small world of the ablations."""

from dataclasses import dataclass, replace

from ..training.options import TrainingOptions

INTENSITIES = (0.6, 1.0, 1.4)  # of the three levels


@dataclass(frozen=True)
class Making:
    """How the miniature is made.

    Attributes:
        takes, people: drawn takes to learn from, and the people in them.
        vae_steps, vae_encoder_steps: of 8 pictures; after the second number the VAE's encoder stays as it is.
        audio_encoder_steps, image_encoder_steps: of 30 s; of 2 pictures of 32 people.
        steps, full_steps, cool_down, batch: of the method's own training, see `stages`.
        seed: of everything.
    """

    takes: int = 1600
    people: int = 400
    vae_steps: int = 1600
    vae_encoder_steps: int = 1200
    audio_encoder_steps: int = 1000
    image_encoder_steps: int = 400
    steps: int = 4700
    full_steps: int = 2000
    cool_down: int = 700
    batch: int = 4
    seed: int = 0

    def stages(self):
        """The `TrainingOptions` of the method's two stages.

        In the first, half of the clips see the nearest code alone, by which codes learn. In the second, every clip sees
        the whole bank, as sampling does by default, at higher noise levels, where a face's expression is decided; its
        last `cool_down` steps have a falling learning rate.
        """
        first = TrainingOptions(
            trains="all",
            steps=self.steps,
            batch=self.batch,
            rate=1e-3,
            bank="both",
            portraits="person",
            intensities=INTENSITIES,
            ema=0.99,
            seed=self.seed,
        )
        second = replace(
            first,
            steps=self.full_steps,
            cool_down=self.cool_down,
            bank="full",
            sigma_mean=1.3,
            seed=self.seed + 1,
        )
        return first, second


@dataclass(frozen=True)
class World:
    """The small world in which parts of the method are left out, one by one.

    Attributes:
        takes, people: drawn takes to learn from, and the people in them.
        steps, cool_down, batch, frames, rate: of each training.
        seeds: trainings of each ablation, with the seeds from 0 on.
        measured: held-out people, who are asked for each of the eight emotions.
        sampling_steps: of their clips.
    """

    takes: int = 320
    people: int = 80
    steps: int = 1200
    cool_down: int = 300
    batch: int = 16
    frames: int = 4
    rate: float = 2e-3
    seeds: int = 3
    measured: int = 4
    sampling_steps: int = 12
