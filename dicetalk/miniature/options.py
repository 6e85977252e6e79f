"""How the miniature is made."""

from dataclasses import dataclass

from ..training.options import TrainingOptions

INTENSITIES = (0.6, 1.0, 1.4)  # of the three levels


@dataclass(frozen=True)
class Making:
    """How the miniature is made.

    Attributes:
        takes, people: drawn takes to learn from, and the people in them.
        vae_steps, vae_encoder_steps: of 8 pictures; after the second number the VAE's encoder stays as it is.
        audio_encoder_steps, image_encoder_steps: of 30 s; of 2 pictures of 32 people.
        steps, cool_down, batch: of the method's own training, see `TrainingOptions`.
        seed: of everything.
    """

    takes: int = 1600
    people: int = 400
    vae_steps: int = 1600
    vae_encoder_steps: int = 1200
    audio_encoder_steps: int = 1000
    image_encoder_steps: int = 400
    steps: int = 3900
    cool_down: int = 700
    batch: int = 4
    seed: int = 0

    def training(self):
        """The `TrainingOptions`."""
        return TrainingOptions(
            trains="all",
            steps=self.steps,
            cool_down=self.cool_down,
            batch=self.batch,
            rate=1e-3,
            bank="both",
            portraits="person",
            intensities=INTENSITIES,
            ema=0.99,
            seed=self.seed,
        )
