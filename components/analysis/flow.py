"""Numbers of one layer's attention: where information comes from, where it goes, and how far (paper, section 2.2.1).

Everything is computed from attention averaged over heads, and for each image from that image alone: sums over a row or
a column in the attention's own type, what is made of them in float64.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

NEIGHBOUR = 1.5
"""Patches no farther apart than this, in widths of a patch, are neighbours: the eight around a patch."""
SUMMARY_FACTOR = 4.0
"""A patch that gets this many times the attention of an even share is a summary token."""
FLOWS = ("cls", "itself", "summary", "neighbour", "far")
"""What the token at the other end of an arg-max is, for a patch; the first that fits counts."""


@dataclass(frozen=True)
class Layout:
    """Where a tower's tokens stand: `cls` of them first (0 or 1), which have no place, then the patches, row by row."""

    cls: int
    grid: tuple[int, int]

    @property
    def patches(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """T."""
        return self.cls + self.patches

    @cached_property
    def distances_NN(self) -> Tensor:
        """d(p_i, p_j): between the centres of patches, in widths of a patch, float64."""
        rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in self.grid), indexing="ij")
        places_N2 = torch.stack([rows.flatten(), columns.flatten()], -1)
        return (places_N2[:, None] - places_N2[None]).square().sum(-1).sqrt()

    @property
    def even_distance(self) -> float:
        """D_avg of attention that is spread evenly over the patches."""
        return float(self.distances_NN.mean())


@dataclass(frozen=True)
class Flow:
    """What one layer's attention says of each image.

    Attributes:
        inflow_BT: argmax_j A[k, j]: the token that k takes most from; of equals the first. int64.
        outflow_BT: argmax_i A[i, k]: the token that takes most from k; of equals the first. int64.
        cls_attention_BN: what CLS takes from each patch, float64; without a CLS, what a patch gives on average.
        received_BN: what each patch gives to the other patches, in even shares (1: as if attention were uniform).
        summary_BN: whether a patch is a summary token, bool.
        values: a number per image, (B,) float64: see `NAMES`.
    """

    inflow_BT: Tensor
    outflow_BT: Tensor
    cls_attention_BN: Tensor
    received_BN: Tensor
    summary_BN: Tensor
    values: dict[str, Tensor] = field(repr=False)


NAMES = (
    "d_avg",  # equation of D_avg; attention to CLS, which has no place, adds nothing
    "d_avg_patches",  # the same with every row's attention to patches scaled to a sum of one
    "d_top1",  # equation of D_top1, the most attended patch
    "cls_share",  # of the patches' attention, what CLS gets
    "summary_tokens",  # how many patches are summary tokens
    "summary_share",  # of the patches' attention to other patches, what summary tokens get
    *(f"inflow_{name}" for name in FLOWS),  # of the patches, those whose inflow is there
    *(f"outflow_{name}" for name in FLOWS),
)


class Ends(NamedTuple):
    """What is left of one layer's attention when it has been looked at, from which `flow_from` makes all numbers.

    inflow_BT, outflow_BT and nearest_BN (the most attended patch) are int64. Of each patch, float64: the distances that
    it looks over, weighted; what it gives to patches, and to CLS; what the other patches take from it; what CLS takes.
    """

    inflow_BT: Tensor
    outflow_BT: Tensor
    nearest_BN: Tensor
    weighted_BN: Tensor
    to_patches_BN: Tensor
    to_cls_BN: Tensor
    given_BN: Tensor
    cls_attention_BN: Tensor


def flow_of(attention_BTT: Tensor, layout: Layout) -> Flow:
    """Everything that is measured of one layer.

    Args:
        attention_BTT: averaged over heads, rows sum to one; float32 or float64.
        layout: of its tokens.

    Raises:
        ValueError: the attention is not of such tokens.
    """
    return flow_from(ends_of(attention_BTT, layout), layout)


def ends_of(attention_BTT: Tensor, layout: Layout) -> Ends:
    """Look at a layer's attention, once. See `flow_of`."""
    if attention_BTT.shape[1:] != (layout.tokens, layout.tokens):
        raise ValueError(f"attention of {tuple(attention_BTT.shape[1:])} tokens does not fit {layout}")
    cls = layout.cls
    inflow_BT, outflow_BT = _argmax(attention_BTT, -1), _argmax(attention_BTT, -2)
    nearest_BN = inflow_BT[:, cls:] - cls
    if cls:  # of these rows alone, the most attended patch
        at_cls_BN = nearest_BN < 0
        nearest_BN[at_cls_BN] = _argmax(attention_BTT[:, cls:][at_cls_BN][:, cls:], -1)
    among_BNN = attention_BTT[:, cls:, cls:]
    received_BN = among_BNN.sum(-2, dtype=torch.float64)  # its diagonal may be most of it, and is taken off again
    cls_attention_BN = attention_BTT[:, 0, 1:] if cls else received_BN / layout.patches
    return Ends(
        inflow_BT=inflow_BT,
        outflow_BT=outflow_BT,
        nearest_BN=nearest_BN,
        weighted_BN=(among_BNN * layout.distances_NN.to(among_BNN)).sum(-1).double(),
        to_patches_BN=among_BNN.sum(-1).double(),
        to_cls_BN=attention_BTT[:, cls:, :cls].sum(-1).double(),
        given_BN=received_BN - among_BNN.diagonal(dim1=-2, dim2=-1).double(),
        cls_attention_BN=cls_attention_BN.to(torch.float64, copy=True),  # no view of all of the attention
    )


def flow_from(ends: Ends, layout: Layout) -> Flow:
    """All numbers, of one layer's images or of several layers' together: what is B here is any number of both."""
    patches = layout.patches
    total_B1 = ends.given_BN.sum(-1, keepdim=True)
    # Identity attention gives nothing to others: then there is no share, and no summary token.
    received_BN = torch.where(total_B1 > 1e-12, patches * ends.given_BN / total_B1.clamp_min(1e-12), 0.0)
    summary_BN = received_BN >= SUMMARY_FACTOR
    shares = {
        f"{name}_{kind}": share_B
        for name, ends_BT in (("inflow", ends.inflow_BT), ("outflow", ends.outflow_BT))
        for kind, share_B in _shares(ends_BT, summary_BN, layout).items()
    }
    return Flow(
        inflow_BT=ends.inflow_BT,
        outflow_BT=ends.outflow_BT,
        cls_attention_BN=ends.cls_attention_BN,
        received_BN=received_BN,
        summary_BN=summary_BN,
        values={
            "d_avg": ends.weighted_BN.mean(-1),
            "d_avg_patches": (ends.weighted_BN / ends.to_patches_BN.clamp_min(1e-300)).mean(-1),
            "d_top1": _apart(ends.nearest_BN, layout).mean(-1),
            "cls_share": ends.to_cls_BN.mean(-1),
            "summary_tokens": summary_BN.sum(-1).double(),
            "summary_share": (received_BN * summary_BN).sum(-1) / patches,
            **shares,
        },
    )


def _argmax(values: Tensor, dim: int) -> Tensor:
    """Of equals the first. On a processor NumPy's, which is several times as fast."""
    return torch.from_numpy(values.numpy().argmax(dim)) if values.device.type == "cpu" else values.argmax(dim)


def _apart(places_BN: Tensor, layout: Layout) -> Tensor:
    """How far the patch of each place lies from the patch that it is told of: (B, N), float64."""
    own_N = torch.arange(layout.patches, device=places_BN.device)
    return layout.distances_NN.to(places_BN.device)[own_N, places_BN]


def _shares(ends_BT: Tensor, summary_BN: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Of the patches, how many have the other end of their flow at CLS, at themselves, ...: {kind: (B,) float64}."""
    ends_BN = ends_BT[:, layout.cls :] - layout.cls  # negative: CLS
    at_BN = ends_BN.clamp_min(0)
    place_N = torch.arange(layout.patches, device=ends_BN.device)
    fits = {
        "cls": ends_BN < 0,
        "itself": ends_BN == place_N,
        "summary": summary_BN.gather(-1, at_BN),
        "neighbour": _apart(at_BN, layout) <= NEIGHBOUR,
        "far": torch.ones_like(ends_BN, dtype=torch.bool),
    }
    left_BN = torch.ones_like(ends_BN, dtype=torch.bool)
    found = {}
    for kind in FLOWS:
        found[kind] = (fits[kind] & left_BN).double().mean(-1)
        left_BN = left_BN & ~fits[kind]
    return found
