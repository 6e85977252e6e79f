"""How a student of `distill` is sampled where nothing else was asked for."""

from typing import Any, Callable

from ..checkpoints.student import Student
from ..model.settings import EMOTION_SCALE, REFERENCE_SCALE
from .speed import PUBLISHED, SPEEDS

PUBLISHED_SETTINGS: dict[str, Any] = {
    "steps": SPEEDS[PUBLISHED]["steps"],
    "sampler": SPEEDS[PUBLISHED]["sampler"],
    "reference_scale": REFERENCE_SCALE,
    "emotion_scale": EMOTION_SCALE,
}


def own_settings(student: Student | None, chosen: dict[str, Any]) -> dict[str, Any]:
    """What was chosen, with the student's own in the place of None; the published values where there is no student.

    Args:
        student: None for a checkpoint that is none.
        chosen: values of some of the names of `PUBLISHED_SETTINGS`, None for those that nobody chose.
    """
    own = PUBLISHED_SETTINGS
    if student is not None:
        own = {"steps": student.steps, "sampler": student.sampler, "reference_scale": 1.0, "emotion_scale": 1.0}
    return {name: own[name] if value is None else value for name, value in chosen.items()}


def unless_published(chosen: dict[str, Any]) -> dict[str, Any]:
    """What was chosen where every setting has a value, as widgets have: the published ones count as not chosen."""
    return {name: None if value == PUBLISHED_SETTINGS[name] else value for name, value in chosen.items()}


def student_text(student: Student, chosen: dict[str, Any], named: Callable[[str], str] = str) -> str:
    """One line that says how a student is sampled, and which settings were given all the same.

    Args:
        chosen: as for `own_settings`.
        named: how a setting is called, for instance "--steps" for "steps".
    """
    text = (
        f"The checkpoint is a student of {student.made_from}: {student.steps} steps of {student.sampler}, and guidance "
        f"({student.reference_scale:g} and {student.emotion_scale:g}) is in its weights."
    )
    given = [f"{named(name)} {value}" for name, value in chosen.items() if value is not None]
    return text + (f" But as given: {', '.join(given)}." if given else "")
