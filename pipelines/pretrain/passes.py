"""A training step's forward and backward pass, on a GPU as one CUDA graph.

The micro codecs' kernels are so small that launching them one by one takes longer than they run: hundreds a step. A
graph launches all of them at once. It is the same arithmetic: what is drawn by chance, too, since a graph takes seeds
from where it is replayed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WARM_UP = 3  # steps before a graph is recorded, in which libraries choose and allocate


@dataclass
class Step:
    """What one pass measured; per image where it says B."""

    loss: Tensor
    mse_B: Tensor
    bpp_B: Tensor


Objective = Callable[[nn.Module, Tensor, Tensor], Step]
"""Network, images (B, 3, H, W) in [0, 1] and quality maps (B, h, w), int64, to what the pass measured."""


class Passes:
    """Calls an objective and leaves the gradient of its loss, and no other, in the network's parameters.

    Between calls the gradients may be changed in place and must not be replaced: a graph writes where it was recorded.

    Args:
        model: the network, on its device.
        objective: what is minimised; on a GPU it must not wait for the device nor copy anything there from the host.
    """

    def __init__(self, model: nn.Module, objective: Objective):
        self.model, self.objective = model, objective
        self.graph: torch.cuda.CUDAGraph | None = None
        self.refused = False

    def __call__(self, x_B3HW: Tensor, maps_BHW: Tensor) -> Step:
        """All calls must have batches of one size."""
        if self.graph is None and x_B3HW.is_cuda and not self.refused:
            try:
                self._record(x_B3HW, maps_BHW)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # an operation of this network, or of this PyTorch, cannot be recorded
                # What ends a recording reports that it was cut short, and why is in its context.
                print(f"no CUDA graph, kernels are launched one by one: {error.__context__ or error}", flush=True)
                self.refused = True
        if self.graph is None:
            return self._run(x_B3HW, maps_BHW)
        self.x_B3HW.copy_(x_B3HW)
        self.maps_BHW.copy_(maps_BHW)
        self.graph.replay()
        return Step(*(value.clone() for value in (self.step.loss, self.step.mse_B, self.step.bpp_B)))

    def _run(self, x_B3HW: Tensor, maps_BHW: Tensor) -> Step:
        step = self.objective(self.model, x_B3HW, maps_BHW)
        self.model.zero_grad(set_to_none=True)
        step.loss.backward()
        return Step(step.loss.detach(), step.mse_B, step.bpp_B)

    def _record(self, x_B3HW: Tensor, maps_BHW: Tensor) -> None:
        self.x_B3HW, self.maps_BHW = x_B3HW.clone(), maps_BHW.clone()
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        # What chance draws in the first step must be what it draws in it without a graph.
        with torch.cuda.stream(beside), torch.random.fork_rng(devices=[x_B3HW.device]):
            for _ in range(WARM_UP):
                self._run(self.x_B3HW, self.maps_BHW)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step = self._run(self.x_B3HW, self.maps_BHW)
        self.graph = graph
