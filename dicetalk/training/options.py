"""How the method is trained."""

from dataclasses import dataclass

from ..model.settings import EMOTION_SCALE, REFERENCE_SCALE

WHAT_TRAINS = ("adapters", "lora", "all")
BANKS = ("retrieval", "full", "both")
PORTRAITS = ("clip", "person")


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. Where the authors' value is unknown, and that is nearly everywhere, the default is a choice.

    Attributes:
        trains: "adapters": the UNet's audio and emotion projections, the audio projection, the pose guider and the
            emotion model, on a frozen UNet; "lora": a LoRA on the UNet's attention; "all": everything.
        steps: steps of the optimizer.
        batch: clips per step, over all processes and accumulated parts.
        accumulate: parts in which a process computes its share of a step.
        frames: frames of a clip in a step; 25 is the window that the released model samples with.
        rate, warm_up, cool_down, decay: AdamW's learning rate, the first steps, over which it rises, the last steps,
            over which it falls to nothing, and weight decay.
        clip: largest norm of the gradient.
        sigma_mean, sigma_deviation: of ln sigma, which is normal; public trainers of Stable Video Diffusion have these.
        bank: one of BANKS: "retrieval": keys and values of the one nearest code, by which alone codes learn; "full":
            those of the whole bank; "both": half of the clips each way.
        discrimination: weight of the emotion discrimination; 0 leaves it out and the classifier as it is.
        discrimination_noise: one of `losses.NOISE_WEIGHTS`.
        quantization: weight of the vector-quantization loss.
        reference: share of the emotions that are drawn from the Gaussian of a clip of the same emotion by another
            person; the others are drawn around the emotion's prior.
        prior_deviation: standard deviation of an emotion that is drawn around its prior.
        portraits: where a clip's portrait is taken from: "clip": from itself; "person": from any clip of the same
            person, so that a portrait does not show the emotion.
        intensities: of levels 1 to 3: an emotion is drawn around neutral's prior plus so much of its own prior's
            difference from it.
        drop_all, drop_driving: share of the clips that are trained as the branch U of guidance, and as R.
        ema: decay of the moving average of the weights, which is what is saved; 0 keeps none.
        rank: of the LoRA.
        checkpointing: layers run again in the backward pass, for less memory.
        seed: of everything.
    """

    trains: str = "adapters"
    steps: int = 1000
    batch: int = 1
    accumulate: int = 1
    frames: int = 25
    rate: float = 1e-5
    warm_up: int = 50
    cool_down: int = 0
    decay: float = 0.01
    clip: float = 1.0
    sigma_mean: float = 0.7
    sigma_deviation: float = 1.6
    bank: str = "retrieval"
    discrimination: float = 0.1
    discrimination_noise: str = "weighted"
    quantization: float = 1.0
    reference: float = 0.0
    prior_deviation: float = 0.1
    portraits: str = "clip"
    intensities: tuple = (1.0, 1.0, 1.0)
    drop_all: float = 0.1
    drop_driving: float = 0.1
    ema: float = 0.999
    rank: int = 16
    checkpointing: bool = False
    seed: int = 0


@dataclass(frozen=True)
class DistillationOptions(TrainingOptions):
    """How to distill: what of `TrainingOptions` applies, and:

    Attributes:
        reference_scale, emotion_scale: of the teacher's guidance, which the student's weights will hold.
        huber: of the loss, see `distillation.pseudo_huber`.
        weakest, strongest: between which the intensity of a clip's emotion is drawn.
        labels: whether a clip that has a label is given its own emotion; else any of the priors' eight.
    """

    trains: str = "lora"
    rate: float = 1e-4
    rank: int = 64
    ema: float = 0.95
    bank: str = "full"  # as sampling uses it
    discrimination: float = 0.0
    quantization: float = 0.0
    drop_all: float = 0.0
    drop_driving: float = 0.0
    reference_scale: float = REFERENCE_SCALE
    emotion_scale: float = EMOTION_SCALE
    huber: float = 0.001
    weakest: float = 0.5
    strongest: float = 1.5
    labels: bool = False
