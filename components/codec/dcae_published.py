"""DCAE's release checkpoints (Lu et al. 2025): their tensors' names and sizes -> our networks with gains of one."""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from components.codec.config import DcaeConfig
from components.codec.dcae import Dcae
from components.codec.gains import Gain
from components.errors import CotamError

StateDict = dict[str, Tensor]

RELEASED_LAMBDA = 1 / (0.05 * 255**2)  # of the first release; a checkpoint does not tell its own

_STAGES = 3

# Names inside a block.
_SWIN = {
    "ln1": "norm_1",
    "ln2": "norm_2",
    "msa.embedding_layer": "attention.qkv",
    "msa.linear": "attention.out",
    "msa.relative_position_params": "attention.bias_EYX",
    "mlp.fc1": "gate.expand",
    "mlp.dwconv.dwconv": "gate.mix",
    "mlp.fc2": "gate.reduce",
    "res_scale_1.scale": "scale_1.scale_C",
    "res_scale_2.scale": "scale_2.scale_C",
}
_DICTIONARY = {
    "scale": "sharpness_E11",
    "x_trans": "enter",
    "ln_scale": "norm_scales",
    "msa.s": "scales.first",
    "msa.spatial_atte.conv1": "scales.gate.conv",
    "msa.dense.proj": "scales.mix",
    "lnx": "norm_query",
    "q_trans": "query",
    "dict_ln": "norm_dictionary",
    "k": "key",
    "linear": "out",
    "ln_mlp": "norm_gate",
    "mlp.fc1": "gate.expand",
    "mlp.dwconv.dwconv": "gate.mix",
    "mlp.fc2": "gate.reduce",
    "output_trans.0": "leave",
    "res_scale_1.scale": "skip_1.scale_C",
    "res_scale_2.scale": "skip_2.scale_C",
    "res_scale_3.scale": "skip_3.scale_C",
} | {
    f"msa.dense.conv_layers.{layer}.1.{theirs}": f"scales.layers.{layer}.{ours}"
    for layer in range(3)
    for theirs, ours in (("in_trans", 1), ("dw_conv", 3), ("out_trans", 5))
}


def is_dcae(tensors: StateDict) -> bool:
    """Whether names are those of a DCAE release."""
    return "dt" in tensors and "dt_cross_attention.0.x_trans.weight" in tensors


def published_dcae(tensors: StateDict, fill: Callable[[Dcae, StateDict], None]) -> Dcae:
    """The single-rate codec of a release checkpoint, of any widths.

    Args:
        tensors: float32, by the release's names.
        fill: gives networks their tensors, and complains about those that do not fit.

    Raises:
        CotamError: the sizes of its tensors do not belong together.
    """
    try:
        model = Dcae(_sizes(tensors))
    except (KeyError, IndexError, ValueError, ZeroDivisionError, RuntimeError):
        raise CotamError("The checkpoint is not a DCAE that can be; copy it again.") from None
    as_published(model)
    fill(model, {our_name(name, model.config.blocks): value for name, value in tensors.items()})
    return model


@torch.no_grad()
def as_published(model: Dcae) -> None:
    """Set what a published model does not have, gains and units, so that it changes nothing."""
    for module in model.modules():
        if isinstance(module, Gain):
            module.log_QC.zero_()
    for unused in (model.entropy.log_spread_C, model.entropy.quality_side_QS):
        unused.zero_()


def _sizes(tensors: StateDict) -> DcaeConfig:
    def count(pattern: str, first: int = 0) -> int:
        n = first
        while pattern.format(n) in tensors:
            n += 1
        return n - first

    def shape(name: str) -> torch.Size:
        return tensors[name].shape

    def swin(prefix: str) -> tuple[int, int, int]:
        """Blocks, channels per head, window."""
        heads, side, _ = shape(f"{prefix}.layers.0.msa.relative_position_params")
        return count(prefix + ".layers.{}.ln1.weight"), shape(f"{prefix}.conv.weight")[0] // heads, (side + 1) // 2

    def ratio(prefix: str) -> int:
        inside, channels = shape(f"{prefix}.mlp.fc1.weight")
        return inside // channels

    stages = [swin(f"g_a.{2 * stage + 1}") for stage in range(_STAGES)]
    _, hyper_head, hyper_window = swin("h_a.1")
    parameters = [shape(f"cc_mean_transforms.0.{layer}.weight") for layer in (0, 2, 4)]
    heads = shape("dt_cross_attention.0.scale")[0]
    slices = count("dt_cross_attention.{}.x_trans.weight")
    return DcaeConfig(
        widths=tuple(shape(f"g_a.{2 * stage}.conv.weight")[0] for stage in range(_STAGES)),
        latent_channels=shape("g_a.6.weight")[0],
        groups=tuple(shape(f"cc_mean_transforms.{k}.4.weight")[0] for k in range(slices)),
        blocks=count("g_a.0.res{}.conv1.weight", first=1),
        kernel=shape("g_a.6.weight")[-1],
        swin=tuple(blocks for blocks, _, _ in stages),
        heads=tuple(head for _, head, _ in stages),
        window=stages[0][2],
        mlp_ratio=ratio("g_a.1.layers.0"),
        hyper_channels=shape("h_a.2.weight")[0],
        hyper_width=shape("h_a.2.weight")[1],
        hyper_window=hyper_window,
        hyper_head=hyper_head,
        hyper_mlp_ratio=ratio("h_a.1.layers.0"),
        side_channels=shape("h_z_s1.2.conv.weight")[1],
        prior_channels=shape("dt_cross_attention.0.output_trans.0.weight")[0],
        dictionary=shape("dt")[0],
        dictionary_heads=heads,
        dictionary_head=shape("dt")[1] // heads,
        dictionary_mlp_ratio=ratio("dt_cross_attention.0"),
        parameter_channels=(parameters[0][0], parameters[1][0]),
        parameter_kernels=tuple(size[-1] for size in parameters),
        centre=0.0,
        log_scales=False,
        learned_density=True,
        lambdas=(RELEASED_LAMBDA,),
    )


def our_name(name: str, blocks: int) -> str:
    """The release's name of a tensor -> ours (or itself, if it has none).

    Args:
        name: as in the release.
        blocks: bottlenecks per resolution: in an analysis Swin blocks come after as many.
    """
    if name == "dt":
        return "entropy.dictionary_ND"
    if match := re.fullmatch(r"(cc_mean|cc_scale|lrp)_transforms\.(.*)", name):
        return f"entropy.{ {'cc_mean': 'means', 'cc_scale': 'scales', 'lrp': 'residuals'}[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"dt_cross_attention\.(\d+)\.(.*)", name):
        return f"entropy.attention.{match[1]}.{_inside(match[2], _DICTIONARY)}"
    if match := re.fullmatch(r"entropy_bottleneck\.(.*)", name):
        return f"entropy.density.{match[1]}"
    if match := re.fullmatch(r"(g_a|g_s|h_a|h_z_s1|h_z_s2)\.(\d+)\.(.*)", name):
        return _of_transform(match[1], int(match[2]), match[3], blocks) or name
    return name


def _of_transform(part: str, place: int, rest: str, blocks: int) -> str | None:
    """A tensor of a chain of strided convolutions (with bottlenecks around them) and Swin blocks, in turn."""
    stage = place // 2  # of the strided convolution, and in an analysis of what refines its output
    if part == "g_a":
        strided, refine, swin = f"down.{stage}", f"analysis.{stage}", blocks
    elif part == "g_s":  # a synthesis's bottlenecks are before the convolution
        strided, refine, swin = f"up.{stage}", f"synthesis.{(place - 1) // 2}", 0
    else:
        ours = {"h_a": "hyper_analysis", "h_z_s1": "hyper_scales", "h_z_s2": "hyper_means"}[part]
        strided, refine, swin = f"entropy.{ours}.{place}", f"entropy.{ours}.1", blocks if part == "h_a" else 0
    if match := re.fullmatch(r"layers\.(\d+)\.(.*)", rest):
        return f"{refine}.branches.{swin}.blocks.{match[1]}.{_inside(match[2], _SWIN)}"
    if match := re.fullmatch(r"res(\d+)\.conv([123])\.(weight|bias)", rest):
        first = 0 if swin else 1
        return f"{refine}.branches.{first + int(match[1]) - 1}.{2 * int(match[2]) - 2}.{match[3]}"
    if match := re.fullmatch(r"conv\.(weight|bias)", rest):
        return f"{refine}.branches.{swin}.last.{match[1]}" if place % 2 else f"{strided}.{match[1]}"
    return f"{strided}.{rest}" if rest in ("weight", "bias") else None


def _inside(name: str, names: dict[str, str]) -> str:
    """A name inside a block, whose last part may be `weight` or `bias`."""
    head, _, tail = name.rpartition(".")
    if name in names:
        return names[name]
    return f"{names[head]}.{tail}" if head in names and tail in ("weight", "bias") else name
