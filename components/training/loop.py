"""The one training loop: what is trained, on what loss and by what schedule, is given by the stage.

It runs on Hugging Face Accelerate, so the same code serves a laptop's cores, a GPU, or several processes. Training is a
pure function of the seed: the batches follow from (seed, epoch, position), and a run that was killed goes on from its
last checkpoint to bitwise the same weights (at the same number of threads and processes). Of several processes
(components/processes.py) each takes its share of every batch, and the first alone writes and tells.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.optim import Optimizer

from components.ahead import in_order
from components.errors import CotamError
from components.processes import micro_batch
from components.progress import track
from components.training.checkpoint import load_checkpoint, random_states, save_checkpoint
from components.training.optimizer import make_optimizers

RAMP = 0.05  # share of the steps over which the learning rate rises
CLIP = 1.0  # largest norm of the gradient
AHEAD = 3  # batches in memory: a thread reads those that follow while one is computed with


@dataclass(frozen=True)
class Schedule:
    """How long, in which portions and how fast."""

    epochs: int
    batch: int
    """Examples per optimizer step, over all processes."""
    learning_rate: float
    """At its highest; it rises over the first 5 % of the steps and then falls to zero along a cosine."""
    before: int = 0
    """Epochs of an earlier stage whose schedule this one goes on with, rather than with one of its own."""
    after: int = 0
    """Epochs of a later stage that goes on with this schedule."""

    def rate(self, step: int, per_epoch: int) -> float:
        """Learning rate of step `step` of this stage, of `per_epoch` in an epoch."""
        step, steps = step + self.before * per_epoch, (self.before + self.epochs + self.after) * per_epoch
        ramp = max(1, round(RAMP * steps))
        if step < ramp:
            return self.learning_rate * (step + 1) / ramp
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))


class Examples(Protocol):
    """What the loop trains on."""

    def __len__(self) -> int: ...

    def order(self, epoch: int) -> np.ndarray:
        """All examples' numbers in this epoch's order; the same in every process and on every call."""

    def batch(self, epoch: int, examples: np.ndarray) -> dict[str, Tensor]:
        """The tensors of these examples, on the CPU: a function of nothing else. A thread calls it."""


Loss = Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
"""(model, batch) -> what to minimise, and its named parts, all scalars."""


class Log(Protocol):
    """Where numbers go while the training runs (`components.tracking.StageLog`)."""

    def metric(self, name: str, value: float, step: int | None = None) -> None: ...


def accelerator() -> Accelerator:
    """This process's part: bfloat16 mixed precision, which is several times faster on CPUs and GPUs alike."""
    return Accelerator(mixed_precision="bf16", cpu=not torch.cuda.is_available())


def train(
    model: nn.Module,
    loss: Loss,
    examples: Examples,
    schedule: Schedule,
    *,
    checkpoint: Path,
    optimizers: Callable[[nn.Module, float], list[Optimizer]] = make_optimizers,
    every: int = 100,
    log: Log | None = None,
    description: str = "Training",
) -> dict[str, float]:
    """Train `model` in place, going on from `checkpoint` if it exists.

    Args:
        model: its parameters that require gradients are trained; the loss calls it.
        optimizers: gives the optimizers of a model at a learning rate; a parameter group's `scale` multiplies it.
        checkpoint: the file to write every `every` steps and to resume from.
        log: gets `loss`, its parts and the learning rate.

    Returns:
        The mean of the loss and of its parts over the last epoch.

    Raises:
        CotamError: the loss is no longer a finite number, or there are more processes than examples in a batch.
    """
    here = accelerator()
    movers = optimizers(model, schedule.learning_rate)
    prepared, *steppers = here.prepare(model, *movers)
    size = min(schedule.batch, len(examples))
    if size < here.num_processes:
        raise CotamError(f"{here.num_processes} processes cannot share batches of {size}; start fewer.")
    at_once = micro_batch() or size
    per_epoch = len(examples) // size  # what is left over comes first in no epoch: orders differ
    steps = schedule.epochs * per_epoch
    kept = load_checkpoint(_of_first(here, checkpoint), model, movers, here.process_index)
    position = kept or {"step": 0, "sums": {}}
    sums: dict[str, float] = position["sums"]

    numbers = range(position["step"], steps)
    share = len(range(here.process_index, size, here.num_processes))  # examples of a batch that are this process's

    def portions() -> Iterator[tuple[int, np.ndarray]]:
        """Epoch and examples of all that this process computes with at once."""
        order = np.empty(0)
        for step in numbers:
            epoch, place = divmod(step, per_epoch)
            if place == 0 or step == numbers[0]:
                order = examples.order(epoch)
            mine = order[place * size : (place + 1) * size][here.process_index :: here.num_processes]
            yield from ((epoch, mine[start : start + at_once]) for start in range(0, share, at_once))

    batches = in_order(lambda portion: examples.batch(*portion), portions(), ahead=AHEAD)
    for step in track(numbers, description) if here.is_main_process else numbers:
        if step % per_epoch == 0:
            sums = {}
        for group in (group for mover in movers for group in mover.param_groups):
            group["lr"] = schedule.rate(step, per_epoch) * group.get("scale", 1.0)

        summed: dict[str, Tensor] = {}
        for start in range(0, share, at_once):
            batch = {name: tensor.to(here.device) for name, tensor in next(batches).items()}
            count = min(at_once, share - start)
            is_last = start + count == share
            with contextlib.nullcontext() if is_last else here.no_sync(prepared):
                total, parts = loss(prepared, batch)
                # Gradients are averaged over processes, whose shares of the batch may differ by one example.
                here.backward(total * (count * here.num_processes / size))
            for name, value in {"loss": total, **parts}.items():
                part = value.detach() * (count / size)
                summed[name] = summed[name] + part if name in summed else part
        here.clip_grad_norm_(model.parameters(), CLIP)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()

        means = here.reduce(torch.stack(list(summed.values())), "sum")
        values = dict(zip(summed, means.tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            raise CotamError(f"The training diverged: at step {step} the loss is no number; lower the learning rate.")
        sums = {name: sums.get(name, 0.0) + value for name, value in values.items()}
        if log is not None and here.is_main_process:
            _report(log, values | {"learning_rate": schedule.rate(step, per_epoch)}, step)
        if (step + 1) % every == 0 or step + 1 == steps:
            random = {name: here.gather(state.to(here.device)) for name, state in random_states().items()}
            if here.is_main_process:
                save_checkpoint(checkpoint, model, movers, {"step": step + 1, "sums": sums}, random)
    return {name: value / per_epoch for name, value in sums.items()}


def _of_first(here: Accelerator, path: Path) -> bytes:
    """What is in the first process's file, empty where there is none; the others' disks need not have it."""
    content = path.read_bytes() if here.is_main_process and path.exists() else b""
    if here.num_processes == 1:
        return content
    size = broadcast(torch.tensor([len(content)], device=here.device))
    sent = torch.frombuffer(bytearray(content or bytes(size.item())), dtype=torch.uint8) if size.item() else None
    return b"" if sent is None else broadcast(sent.to(here.device)).cpu().numpy().tobytes()


def _report(log: Log, values: dict[str, Any], step: int) -> None:
    for name, value in values.items():
        log.metric(name, value, step)
