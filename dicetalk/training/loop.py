"""The training loop under accelerate: one process or many, stopped and continued, to the same result."""

import dataclasses
import math
from contextlib import nullcontext
from pathlib import Path

import torch

from ..embedder.processes import check_same, together
from ..errors import InputError
from .draw import collate
from .emotion_maps import centred
from .parts import fingerprint
from .state import load_state, save_state

# What a state may differ in from the run that continues from it.
_FREE = ("steps", "cool_down", "accumulate", "checkpointing")


class NotFinite(InputError):
    """A loss that is not a finite number."""


def train(objective, clips, priors, accelerator, state=None, save_every=500, resume=False, on_step=None):
    """Train the weights of an objective that take gradients, in place.

    At the end the weights are their moving average, where `options.ema` keeps one.

    Args:
        objective: `parts.build_objective` or `distillation.build_distillation`, on the CPU.
        clips: `dataset.PreparedClips`.
        priors: emotion → (256,) mean, of every emotion among the clips.
        accelerator: Hugging Face's `Accelerator`.
        state: file to keep the state of the training in; None keeps none.
        save_every: steps from one saving of the state to the next.
        resume: continue from `state` where it is there.
        on_step: called as `on_step(done, total, losses)` after each step, in the main process; losses are
            floats as the objective's `losses`, means over the whole batch.

    Returns:
        [[step, *losses], ...], of every step.

    Raises:
        InputError: a batch that the processes cannot share, a missing prior or reference, a state of another run, or
            data or states that differ between processes.
        NotFinite: names the step; the last state that was kept is whole.
    """
    with centred(objective.emo_model, priors):
        return _train(objective, clips, priors, accelerator, state, save_every, resume, on_step)


def _train(objective, clips, priors, accelerator, state, save_every, resume, on_step):
    options = objective.options
    world, rank = accelerator.num_processes, accelerator.process_index
    parts = world * options.accumulate
    if options.batch % parts:
        raise InputError(
            f"A batch of {options.batch} clips cannot be shared by {world} processes in {options.accumulate} parts "
            f"each: give --batch a multiple of {parts}."
        )
    draw = objective.drawing(clips, priors)
    run = _run(objective, clips, priors)
    check_same(run, "The processes train with different options, weights or clips: give all of them the same.")
    learning = {name: each for name, each in objective.named_parameters() if each.requires_grad}
    if not learning:
        raise InputError("Nothing is left to train.")
    optimizer = torch.optim.AdamW(learning.values(), lr=options.rate, weight_decay=options.decay, fused=True)
    average = _average(learning, options)
    found = resume and state is not None and Path(state).is_file()
    done, history = together(lambda: load_state(state, run, learning, optimizer, average) if found else (0, []))
    check_same(done, f"The processes do not find the same state in {state}: its folder must be one that all share.")
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    if average is not None:
        average.to(accelerator.device)
    share = options.batch // parts
    for step in range(done, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_of(options, step)
        optimizer.zero_grad()
        total = torch.zeros(len(objective.losses), device=accelerator.device)
        for part in range(options.accumulate):
            first = step * options.batch + (rank * options.accumulate + part) * share
            items = [draw(number) for number in range(first, first + share)]
            batch = {name: each.to(accelerator.device) for name, each in collate(items).items()}
            last = part == options.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(wrapped):
                losses = wrapped(batch)
                accelerator.backward(losses[0] / options.accumulate)
            total += losses.detach() / options.accumulate
        losses = accelerator.reduce(total, "mean").tolist()
        if not all(map(math.isfinite, losses)):
            raise NotFinite(
                f"The loss is not finite in step {step + 1} ({dict(zip(objective.losses, losses))}). Lower --rate, or "
                "prepare the clips again if it is the first step. The last state is whole."
            )
        norm = accelerator.clip_grad_norm_(learning.values(), options.clip)
        if not math.isfinite(float(norm)):
            raise NotFinite(f"The gradient is not finite in step {step + 1}: lower --rate. The last state is whole.")
        optimizer.step()
        if average is not None:
            average.step(learning.values())
        history.append([step + 1, *losses])
        if accelerator.is_main_process:
            if state is not None and ((step + 1) % save_every == 0 or step + 1 == options.steps):
                save_state(state, run, learning, optimizer, average, step + 1, history)
            if on_step is not None:
                on_step(step + 1, options.steps, losses)
    accelerator.wait_for_everyone()
    objective.to("cpu").eval()
    if average is not None:
        average.to("cpu")
        average.copy_to(learning.values())
    return history


def _average(learning, options):
    if options.ema == 0:
        return None
    from diffusers.training_utils import EMAModel

    return EMAModel(learning.values(), decay=options.ema, use_ema_warmup=True, power=0.75)


def rate_of(options, step) -> float:
    """The learning rate of a step, counted from 0: a trapezoid over all steps."""
    rise, fall = (step + 1) / max(1, options.warm_up), (options.steps - step) / max(1, options.cool_down)
    return options.rate * min(1.0, rise, fall)


def _run(objective, clips, priors):
    """What a state must agree in with the run that continues from it: name → JSON value."""
    options = {name: value for name, value in dataclasses.asdict(objective.options).items() if name not in _FREE}
    means = {name: [round(float(value), 5) for value in mean[:4]] for name, mean in sorted(priors.items())}
    start = fingerprint(objective)
    return options | {"clips": clips.fingerprint(), "start": start, "priors": means, "emotions": "centred"}
