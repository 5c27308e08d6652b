"""CLIP's GELU in one pass: x sigmoid(1.702 x) = silu(1.702 x) / 1.702, and products take factors for nothing."""

SLOPE = 1.702
