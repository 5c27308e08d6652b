"""Analysis and synthesis of an `Elic` for processors and cards that multiply bfloat16 or float16 fast.

What each part bears was measured on the trained micro codec (docs/codec.md, "Speed"):

- residual branches and attention only add to the features: they run in the short type on both sides;
- the synthesis reads a latent that is decided already, so all of it runs in the short type, its strided weights rounded
  so that the sum of every kernel stays what it was (`rounded_kernels`);
- the chain of strided convolutions in the analysis stays as exact as float32: its last bits decide how the latent is
  rounded, and a few entries rounded the other way cost more at low rates than all that the synthesis loses. Its first
  two convolutions, most of the work, are linear in an image of three channels: what they make of it is folded into one
  in float32 (`folded.py`), and what branches add between them goes through the second in the short type. On processors
  with AMX, where a product in bfloat16 takes a tenth of one in float32, the others are put together from four of them
  (`split.py`).

On a processor the widest features are made in bands of rows. Bands overlap by what the convolutions read across their
edges, so that the result is that of the whole picture but for the order of sums. A band's memory serves the next band
again, and at half the picture's size getting new memory from the system would take as long as the arithmetic.

Streams made this way are ordinary ones. The entropy model, which has to be exact, takes nothing from here but the
values that are coded.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.codec.elic import Elic
from components.codec.folded import Folded
from components.codec.gains import Gain
from components.codec.short import ShortAttention, ShortBottleneck, ShortConv, laid_out, short_branches
from components.codec.split import SplitConv, splits_pay

REVISION = 2  # of what these transforms compute
BAND_BYTES = 20 << 20  # of a band's widest features in float32; glibc keeps blocks below 32 MiB for the next time


def short_type(device: torch.device) -> torch.dtype:
    """The type that this machine multiplies fast; float32 if there is none, and then only the bands save time."""
    if device.type != "cpu":
        return torch.float16
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


class FastTransforms:
    """The transforms of a trained model, with the signatures of `Elic.analyse` and `Elic.synthesize`.

    Args:
        model: whose weights are copied, to its device.
        short: bfloat16 (processors with AMX or AVX512-BF16, cards) or float16 (cards); float32: only bands save time.
        band_bytes: how much of the features to have at once, roughly.
    """

    def __init__(self, model: Elic, short: torch.dtype = torch.bfloat16, band_bytes: int = BAND_BYTES):
        self.short, self.band_bytes = short, band_bytes
        down = [laid_out(conv, torch.float32) for conv in model.down]
        device = down[0].weight.device
        folds = device.type == "cpu" and short != torch.float32  # a card has float32 enough for the chain as it is
        # The first has three channels: nothing is faster for so few.
        first = 2 if folds else 1
        split = short == torch.bfloat16 and splits_pay(device)
        self.down = [SplitConv(conv) if split and k >= first else conv for k, conv in enumerate(down)]
        self.up = [ShortConv(rounded_kernels(conv, short), short) for conv in model.up]
        self.analysis = [short_branches(refine.branches, short) for refine in model.analysis]
        self.synthesis = [short_branches(refine.branches, short) for refine in model.synthesis]
        self.analysis_gain, self.latent_gain = list(model.analysis_gain), model.latent_gain
        self.synthesis_inverse = list(model.synthesis_inverse)
        self.folded = Folded(*down[:2], self.analysis_gain[0]) if folds else None
        if folds:
            self.short_down = [ShortConv(rounded_kernels(conv, short), short) for conv in model.down[:2]]
            self.short_down[1].conv.bias.zero_()  # it is in the folded one

    @property
    def identity(self) -> str:
        """A name that other transforms of the same weights, which give other values, do not have."""
        return f"{self.short} {'split ' * any(isinstance(conv, SplitConv) for conv in self.down)}{REVISION}"

    @torch.inference_mode()
    def analyse(self, x_B3HW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Image -> latent after its gain, (B, C, H/16, W/16), float32."""
        first, *others = self.down
        steps = [_Strided(first)]
        segments = []
        for branches, gain, down in zip(self.analysis, self.analysis_gain, others, strict=True):
            steps += [_Branches(branches, self.short), _Gain(gain, quality_map_BHW), _Strided(down)]
            segments.append(steps)
            steps = []
        features = (x_B3HW - 0.5).contiguous(memory_format=torch.channels_last)
        if self.folded is not None:
            features = self._first_two(features, quality_map_BHW)
            segments = segments[1:]
        for segment in segments:
            features = self._in_bands(segment, features)
        return self.latent_gain(features, quality_map_BHW)

    def _first_two(self, x_B3HW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Image -> features at a quarter of its size: the chain's in float32, the branches' in the short type."""
        gain = self.analysis_gain[0]
        usual_B = quality_map_BHW.flatten(1).mode().values
        first, second = map(_Strided, self.short_down)
        additions = _Additions(self.analysis[0], self.short, gain, quality_map_BHW, usual_B)
        steps = [first, additions, _Gain(gain, quality_map_BHW), second]
        added_BCHW = self._in_bands(steps, x_B3HW.to(self.short))
        return self.folded(x_B3HW, usual_B).add_(added_BCHW)

    @torch.inference_mode()
    def synthesize(self, latent_BCHW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Latent after the inverse gain -> image, not clipped, (B, 3, 16h, 16w), float32."""
        segments = []
        for up, gain, branches in zip(self.up, self.synthesis_inverse, self.synthesis, strict=False):
            segments.append([_Strided(up), _Gain(gain, quality_map_BHW), _Branches(branches, self.short)])
        segments[-1].append(_Strided(self.up[-1]))
        features = latent_BCHW.to(self.short).contiguous(memory_format=torch.channels_last)
        for segment in segments:
            features = self._in_bands(segment, features)
        return features.float() + 0.5

    def _in_bands(self, steps: Sequence["_Step"], features_BCHW: Tensor) -> Tensor:
        """What the steps make of the features, some rows at a time."""
        batch, _, height, width = features_BCHW.shape
        factor, reach, largest = 1.0, 0.0, 1.0  # rows per row of the input; its rows read beyond an edge; bytes per row
        for step in steps:
            reach += step.reach / factor
            factor *= step.factor
            largest = max(largest, step.channels * factor * factor * 4 * batch * width)
        grain = max(1, round(1 / factor))  # a band starts at a whole row of every resolution within
        overlap = -int(-reach // grain) * grain
        rows = max(int(self.band_bytes / largest) // grain, 1) * grain
        if features_BCHW.device.type != "cpu" or rows >= height:
            return _run(steps, features_BCHW, 0)
        count = -(-height // rows)
        rows = -(-height // (count * grain)) * grain  # bands of one size
        out = None
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            top, bottom = max(start - overlap, 0), min(stop + overlap, height)
            band = features_BCHW[:, :, top:bottom]
            if not isinstance(steps[0], _Strided):
                band = band.clone(memory_format=torch.channels_last)  # the next band reads some of the same rows
            band = _run(steps, band, top)
            if out is None:
                shape = (batch, band.shape[1], round(height * factor), band.shape[3])
                out = torch.empty(shape, dtype=band.dtype, memory_format=torch.channels_last)
            kept = slice(round((start - top) * factor), round((stop - top) * factor))
            out[:, :, round(start * factor) : round(stop * factor)] = band[:, :, kept]
        return out


def _run(steps: Sequence["_Step"], features_BCHW: Tensor, row: int) -> Tensor:
    """All steps, one after another, on features whose first row is row `row` of the picture's."""
    factor = 1.0
    for step in steps:
        features_BCHW = step(features_BCHW, round(row * factor))
        factor *= step.factor
    return features_BCHW


class _Step:
    """Part of a transform.

    Attributes:
        factor: rows out per row in.
        reach: rows of the input that an output reads beyond its own.
        channels: of the output; 0: those of the input.
    """

    factor: float = 1.0
    reach: int = 0
    channels: int = 0

    def __call__(self, features_BCHW: Tensor, row: int) -> Tensor:
        """The features may be overwritten, but by a strided convolution; `row` is the number of their first one."""
        raise NotImplementedError


class _Strided(_Step):
    """A convolution that halves, or doubles, height and width."""

    def __init__(self, conv: nn.Conv2d | ShortConv | SplitConv):
        self.conv, self.channels = conv, conv.out_channels
        self.factor = 2.0 if conv.transposed else 0.5
        self.reach = conv.kernel_size[0] // 4 + 1 if conv.transposed else conv.kernel_size[0] // 2

    def __call__(self, features_BCHW: Tensor, row: int) -> Tensor:
        return self.conv(features_BCHW)


class _Branches(_Step):
    """Branches in the short type, each added to the features.

    Longer features are added to once, by the sum of what the branches make of their own, short, copy.
    """

    def __init__(self, branches: Sequence[ShortBottleneck | ShortAttention], short: torch.dtype):
        self.branches, self.short = branches, short
        self.reach = sum(branch.reach for branch in branches)

    def __call__(self, features_BCHW: Tensor, row: int) -> Tensor:
        if features_BCHW.dtype != self.short:
            copied_BCHW = features_BCHW.to(self.short)
            return features_BCHW.add_(self._add_up(copied_BCHW, torch.zeros_like(copied_BCHW)))
        for branch in self.branches:
            branch(features_BCHW, (features_BCHW,))
        return features_BCHW

    def _add_up(self, features_BCHW: Tensor, total_BCHW: Tensor) -> Tensor:
        """Add what each branch says to the total, and to the features that the next one reads."""
        for branch in self.branches[:-1]:
            branch(features_BCHW, (features_BCHW, total_BCHW))
        self.branches[-1](features_BCHW, (total_BCHW,))
        return total_BCHW


class _Additions(_Branches):
    """What branches add to features of the short type, without these.

    Where the gain after them is not the usual one, what that makes of the features counts as an addition, too.
    """

    def __init__(
        self,
        branches: Sequence[ShortBottleneck | ShortAttention],
        short: torch.dtype,
        gain: Gain,
        quality_map_BHW: Tensor,
        usual_B: Tensor,
    ):
        super().__init__(branches, short)
        # g (x + added) = usual x + g ((1 - usual / g) x + added)
        logs_BQC = gain.log_QC[usual_B][:, None] - gain.log_QC
        even = bool((quality_map_BHW == usual_B[:, None, None]).all())
        self.missing = None if even else _Gain(-torch.expm1(logs_BQC), quality_map_BHW)

    def __call__(self, features_BCHW: Tensor, row: int) -> Tensor:
        if self.missing is None:
            return self._add_up(features_BCHW, torch.zeros_like(features_BCHW))
        return self._add_up(features_BCHW, self.missing(features_BCHW.clone(), row))


class _Gain(_Step):
    """Gains of every place, without making a map of them at the features' resolution.

    Args:
        gain: or a table of factors, (B, qualities, C).
        quality_map_BHW: which row holds where.
    """

    def __init__(self, gain: Gain | Tensor, quality_map_BHW: Tensor):
        self.map_BHW = quality_map_BHW
        table_QC = gain.log_QC.exp() if isinstance(gain, Gain) else gain
        self.table_BQC = table_QC.expand(len(quality_map_BHW), *table_QC.shape[-2:])
        self.uniform = bool((quality_map_BHW == quality_map_BHW[:, :1, :1]).all())

    def __call__(self, features_BCHW: Tensor, row: int) -> Tensor:
        if self.uniform:
            return features_BCHW.mul_(self._at(self.map_BHW[:, :1, :1]).permute(0, 3, 1, 2).to(features_BCHW.dtype))
        height, width = features_BCHW.shape[-2:]
        side = width // self.map_BHW.shape[-1]
        rows = torch.arange(row, row + height, device=self.map_BHW.device) // side
        features_BHWSC = features_BCHW.permute(0, 2, 3, 1).unflatten(2, (-1, side))
        features_BHWSC.mul_(self._at(self.map_BHW[:, rows]).to(features_BCHW.dtype)[:, :, :, None])
        return features_BCHW

    def _at(self, map_BHW: Tensor) -> Tensor:
        """Factors (B, H, W, C)."""
        return torch.stack([table_QC[map_HW] for table_QC, map_HW in zip(self.table_BQC, map_BHW, strict=True)])


def rounded_kernels(conv: nn.Conv2d | nn.ConvTranspose2d, short: torch.dtype) -> nn.Conv2d | nn.ConvTranspose2d:
    """A copy whose weights are values of the short type, and every kernel's sum nearly what it was.

    Features change slowly from place to place, so what a kernel does to a constant matters most. Its taps are rounded
    one by one from the largest to the smallest, each with what the ones before it left.
    """
    conv = copy.deepcopy(conv)
    weight_OIK = conv.weight.detach().flatten(2).double()
    order_OIK = weight_OIK.abs().argsort(-1, descending=True)
    left_OI = torch.zeros_like(weight_OIK[..., 0])
    rounded = []
    for tap_OI in weight_OIK.gather(-1, order_OIK).unbind(-1):
        wanted_OI = tap_OI + left_OI
        rounded.append(wanted_OI.to(short).double())
        left_OI = wanted_OI - rounded[-1]
    weight_OIK = torch.empty_like(weight_OIK).scatter_(-1, order_OIK, torch.stack(rounded, -1))
    conv.weight.data = weight_OIK.to(conv.weight.dtype).view_as(conv.weight)
    return conv
