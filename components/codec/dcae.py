"""Variable-rate DCAE (Lu et al. 2025): residual bottlenecks and Swin blocks refine the features; gains as in the paper.

`FULL_DCAE` is the published network, in which gains of one change nothing.
"""

from components.codec.config import DcaeConfig
from components.codec.dcae_entropy import DcaeEntropy
from components.codec.swin import Swin
from components.codec.transforms import Bottleneck, Branches, VariableRate


class Dcae(VariableRate):
    """DCAE's networks with gains."""

    def __init__(self, config: DcaeConfig):
        super().__init__(config)
        self.centre = config.centre
        self.entropy = DcaeEntropy(config)

    def refine_analysis(self, stage: int) -> Branches:
        """Bottlenecks, then Swin blocks."""
        return Branches([*self._bottlenecks(stage), self._swin(stage)])

    def refine_synthesis(self, stage: int) -> Branches:
        """Swin blocks, then bottlenecks."""
        return Branches([self._swin(stage), *self._bottlenecks(stage)])

    def _bottlenecks(self, stage: int) -> list[Bottleneck]:
        return [Bottleneck(self.config.widths[stage]) for _ in range(self.config.blocks)]

    def _swin(self, stage: int) -> Swin:
        config = self.config
        return Swin(
            config.widths[stage], config.swin[stage], config.heads[stage], config.window, config.mlp_ratio
        )
