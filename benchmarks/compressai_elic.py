"""Our ELIC, one quality of it, in CompressAI's hands: its layers, its latent codecs, its coder, our weights.

This is what `cotam bench codec` compares with. CompressAI's own `Elic2022Official` cannot hold our weights: it has
attention at 1/4 of the image's size and on the latent, ours is at 1/8; and its context model has other layers. So here
is a model that differs from it only there: `SimpleVAECompressionModel`, its bottleneck and attention blocks, and the
latent codecs (`HyperLatentCodec`, `ChannelGroupsLatentCodec`, `CheckerboardLatentCodec`) that `Elic2022Official` is
made of. `compress` and `decompress` are CompressAI's, untouched.

With one quality for the whole picture a gain scales channels by constants, which are multiplied into the weights around
it: CompressAI's side does not pay for gains. One thing stays ours: the density of the hyper latent is Gaussian, where
CompressAI's is learned; its tables are made once, by CompressAI, and its speed is the same.

Pictures must be multiples of 64 pixels, as for `Elic2022Official`.
"""

from collections.abc import Sequence

import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.latent_codecs import (
    ChannelGroupsLatentCodec,
    CheckerboardLatentCodec,
    GaussianConditionalLatentCodec,
    HyperLatentCodec,
    HyperpriorLatentCodec,
)
from compressai.layers import AttentionBlock, CheckerboardMaskedConv2d
from compressai.models.base import SimpleVAECompressionModel
from compressai.models.sensetime import ResidualBottleneckBlock
from torch import Tensor, nn

from components.codec.checkerboard import Checkerboard
from components.codec.elic import Attention, Elic, Refine
from components.codec.entropy_model import EntropyModel

Layer = nn.Conv2d | nn.ConvTranspose2d


class CompressaiElic(SimpleVAECompressionModel):
    """CompressAI's model of one quality of an `Elic`; call `update()` before `compress`.

    Args:
        model: any sizes; its weights are copied.
        quality: 0 to 9.
    """

    @torch.no_grad()
    def __init__(self, model: Elic, quality: int):
        super().__init__()
        analysis: list[nn.Module] = [Shift(-0.5)]
        gains = [gain.log_QC[quality].exp() for gain in (*model.analysis_gain, model.latent_gain)]
        for k, down in enumerate(model.down):
            last = k == len(model.analysis)
            before = gains[k - 1] if k else None
            analysis.append(_scaled(down, inputs=before, outputs=gains[k] if last else None))
            analysis += [] if last else _blocks(model.analysis[k])
        self.g_a = nn.Sequential(*analysis)

        synthesis: list[nn.Module] = []
        for k, up in enumerate(model.up):
            last = k == len(model.synthesis)
            before = model.latent_inverse.log_QC[quality].exp() if k == 0 else None
            after = None if last else model.synthesis_inverse[k].log_QC[quality].exp()
            synthesis.append(_scaled(up, inputs=before, outputs=after))
            synthesis += [] if last else _blocks(model.synthesis[k])
        synthesis[-1].bias += 0.5
        self.g_s = nn.Sequential(*synthesis)

        to_unit = 1 / (gains[-1] * model.entropy.log_spread_C.exp())
        self.latent_codec = HyperpriorLatentCodec(
            latent_codec={
                "y": _groups(model.entropy, to_unit),
                "hyper": _hyper(model.entropy, to_unit, quality),
            }
        )


class Shift(nn.Module):
    """Adds a constant. (The picture's borders are padded after that, so no bias can do it.)"""

    def __init__(self, by: float):
        super().__init__()
        self.by = by

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.by


class ToScales(nn.Module):
    """Means and log-scales in units of spread -> scales and means, as CompressAI's Gaussians take them."""

    def __init__(self, unit_C: Tensor):
        super().__init__()
        self.register_buffer("unit", unit_C[None, :, None, None].clone())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        mean, log_scale = x_BCHW.chunk(2, 1)
        return torch.cat([log_scale.clamp(-9, 5).exp() * self.unit, mean * self.unit], 1)


class GaussianBottleneck(EntropyBottleneck):
    """CompressAI's entropy bottleneck with a Gaussian for each channel's density.

    Args:
        mean_C, scale_C: of each channel.
    """

    def __init__(self, mean_C: Tensor, scale_C: Tensor):
        super().__init__(len(mean_C))
        self.register_buffer("mean", mean_C[:, None, None].double())
        scale = scale_C[:, None, None].double().clamp(min=0.11)
        self.register_buffer("scale", scale)
        self.quantiles.data = torch.cat([self.mean - 6 * scale, self.mean, self.mean + 6 * scale], -1).float()

    def _logits_cumulative(self, inputs: Tensor, stop_gradient: bool) -> Tensor:
        normal = (inputs.double() - self.mean) / self.scale
        return (torch.special.log_ndtr(normal) - torch.special.log_ndtr(-normal)).float()


def _hyper(entropy: EntropyModel, to_unit_C: Tensor, quality: int) -> HyperLatentCodec:
    gain = entropy.hyper_gain.log_QC[quality].exp()
    first, last = entropy.hyper_analysis[0], entropy.hyper_analysis[-1]
    analysis = [_scaled(first, inputs=to_unit_C), *_rest(entropy.hyper_analysis), _scaled(last, outputs=gain)]
    first, last = entropy.hyper_synthesis[0], _scaled(entropy.hyper_synthesis[-1])
    last.bias += entropy.quality_side_QS[quality]
    synthesis = [_scaled(first, inputs=1 / gain), *_rest(entropy.hyper_synthesis), last]
    density = GaussianBottleneck(entropy.hyper_mean_QC[quality], entropy.hyper_log_scale_QC[quality].exp())
    return HyperLatentCodec(density, nn.Sequential(*analysis), nn.Sequential(*synthesis), quantizer="ste")


def _groups(entropy: EntropyModel, to_unit_C: Tensor) -> ChannelGroupsLatentCodec:
    config = entropy.config
    channel_context, codecs = {}, {}
    for k in range(len(config.groups)):
        group = entropy.group(k)
        if k > 0:
            first, *rest = entropy.channel_context[k - 1]
            context = [_scaled(first, inputs=to_unit_C[: group.start]), *(type(layer)(inplace=True) for layer in rest)]
            channel_context[f"y{k}"] = nn.Sequential(*context)
        mix, _, out = entropy.aggregation[k]
        # Ours reads side, channel context, anchors; CompressAI's anchors, channel context, side.
        parts = list(mix.weight.split([config.side_channels] + [config.context_channels] * (1 + (k > 0)), 1))
        reordered = _scaled(mix)
        reordered.weight.copy_(torch.cat(parts[::-1], 1))
        parameters = nn.Sequential(reordered, nn.ReLU(inplace=True), _scaled(out), ToScales(1 / to_unit_C[group]))
        codecs[f"y{k}"] = CheckerboardLatentCodec(
            latent_codec={"y": GaussianConditionalLatentCodec(quantizer="ste")},
            context_prediction=_scaled(entropy.spatial_context[k], inputs=to_unit_C[group]),
            entropy_parameters=parameters,
        )
    return ChannelGroupsLatentCodec(groups=list(config.groups), channel_context=channel_context, latent_codec=codecs)


def _scaled(layer: Layer, inputs: Tensor | None = None, outputs: Tensor | None = None) -> Layer:
    """A copy of a layer whose input and output channels are multiplied by constants."""
    kind = CheckerboardMaskedConv2d if isinstance(layer, Checkerboard) else type(layer)
    options = {"kernel_size": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
    transposed = kind is nn.ConvTranspose2d
    if transposed:
        options["output_padding"] = layer.output_padding
    assert kind in (nn.Conv2d, nn.ConvTranspose2d, CheckerboardMaskedConv2d)
    copy = kind(layer.in_channels, layer.out_channels, **options)
    copy.load_state_dict(layer.state_dict())
    weight_OI = copy.weight.transpose(0, 1) if transposed else copy.weight
    if inputs is not None:
        weight_OI *= inputs[None, :, None, None]
    if outputs is not None:
        weight_OI *= outputs[:, None, None, None]
        copy.bias *= outputs
    return copy


def _rest(sequence: nn.Sequential) -> list[nn.Module]:
    """What is between the first and the last layer."""
    middle = list(sequence)[1:-1]
    return [nn.ReLU(inplace=True) if isinstance(layer, nn.ReLU) else _scaled(layer) for layer in middle]


def _blocks(refine: Refine) -> Sequence[nn.Module]:
    blocks = []
    for branch in refine.branches:
        if isinstance(branch, Attention):
            block = AttentionBlock(branch.conv_b[-1].out_channels)
            block.load_state_dict(branch.state_dict())
        else:
            first, _, middle, _, last = branch
            block = ResidualBottleneckBlock(first.in_channels, last.out_channels)
            for mine, theirs in zip((first, middle, last), (block.conv1, block.conv2, block.conv3), strict=True):
                theirs.load_state_dict(mine.state_dict())
        blocks.append(block)
    return blocks
