"""Variable-rate ELIC: residual bottlenecks and attention refine the features (paper, A.3 and figure 15)."""

from torch import nn

from components.codec.attention import GatedUnits
from components.codec.config import CodecConfig
from components.codec.entropy_model import EntropyModel
from components.codec.transforms import Bottleneck, Branches, VariableRate


class Attention(GatedUnits):
    """Attention without its skip (the caller adds it in float32); starts nearly silent."""

    def __init__(self, channels: int):
        super().__init__(channels)
        nn.init.constant_(self.conv_b[-1].bias, -5.0)


class Refine(Branches):
    """A few bottlenecks, and attention after them.

    Args:
        channels: channels of the features.
        blocks: how many bottleneck blocks.
        attention: whether an attention block follows them.
    """

    def __init__(self, channels: int, blocks: int, attention: bool = False):
        branches = [Bottleneck(channels) for _ in range(blocks)]
        super().__init__([*branches, Attention(channels)] if attention else branches)


class Elic(VariableRate):
    """ELIC's networks (He et al. 2022) with gains."""

    def __init__(self, config: CodecConfig):
        super().__init__(config)
        self.entropy = EntropyModel(config)

    def refine_analysis(self, stage: int) -> Refine:
        """Attention only at the coarsest resolution, where it is cheap."""
        last = len(self.config.widths) - 1
        return Refine(self.config.widths[stage], self.config.blocks, attention=stage == last)

    refine_synthesis = refine_analysis
