"""What the distinct pictures of an evaluation took, over all its processes.

lmms-eval's processes meet in torch.distributed, whether `accelerate launch` or `torchrun` started them. (Accelerate
itself takes those that torchrun starts on processors for single ones.) Every process has to call these functions.
"""

import struct
from collections.abc import Sequence

import torch
import torch.distributed as dist

Coded = dict[bytes, tuple[int, int]]
"""SHA-256 of a stream -> its bits, and the pixels of its picture."""


def gather_coded(coded: Coded, device: torch.device) -> Coded:
    """What all processes have coded, in each of them; a picture that several have coded counts once."""
    if not _several():
        return coded
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(coded)], device=device))
    rows_N6 = torch.zeros(int(max(counts)), 6, dtype=torch.int64, device=device)
    for place, (name, sizes) in enumerate(coded.items()):
        rows_N6[place] = torch.tensor([*struct.unpack("<4q", name), *sizes])
    gathered = [torch.zeros_like(rows_N6) for _ in counts]
    dist.all_gather(gathered, rows_N6)
    rows = (row for rows_N6, count in zip(gathered, counts, strict=True) for row in rows_N6[: int(count)].tolist())
    return {struct.pack("<4q", *name): (bits, pixels) for *name, bits, pixels in rows}


def summed(numbers: Sequence[int], device: torch.device) -> list[int]:
    """Each number's sum over all processes."""
    sums = torch.tensor(numbers, device=device)
    if _several():
        dist.all_reduce(sums)
    return sums.tolist()


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()
