"""Images with the statistics of photographs, made rather than taken: dead leaves under 1/f texture.

A codec that has only seen scenes would be helpless on a photograph; a share of these in its training keeps it general.
"""

import numpy as np
from numpy.typing import NDArray


def pink_noise(rng: np.random.Generator, size: int, slope: float) -> NDArray[np.float32]:
    """(size, size) noise of unit deviation whose amplitude falls as frequency ** -slope."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    amplitude = np.maximum(np.hypot(fy, fx), 1 / size) ** -slope
    phase = rng.standard_normal(amplitude.shape) + 1j * rng.standard_normal(amplitude.shape)
    noise = np.fft.irfft2(amplitude * phase, s=(size, size))
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def dead_leaves(seed: int, size: int = 128) -> NDArray[np.uint8]:
    """One image (size, size, 3): occluding discs and boxes of all sizes, shaded and textured, some out of focus."""
    rng = np.random.default_rng(seed)
    palette = np.clip(rng.normal(rng.uniform(0.25, 0.7, 3), rng.uniform(0.08, 0.25), (12, 3)), 0, 1)
    image = np.empty((size, size, 3), np.float32)
    image[:] = palette[0]
    texture = np.stack([pink_noise(rng, size, rng.uniform(0.6, 1.4)) for _ in range(3)], -1)
    ys, xs = np.mgrid[:size, :size].astype(np.float32)
    smallest = rng.uniform(1.5, 6)
    for _ in range(int(rng.integers(20, 260))):
        radius = min(smallest * rng.uniform(0.01, 1) ** -0.6, size / 2)
        cy, cx = rng.uniform(-0.1, 1.1, 2) * size
        top, left = max(int(cy - radius), 0), max(int(cx - radius), 0)
        box = np.s_[top : max(int(cy + radius) + 2, 0), left : max(int(cx + radius) + 2, 0)]
        dy, dx = ys[box] - cy, xs[box] - cx
        if rng.random() < 0.6:
            cover = np.clip(radius - np.hypot(dy, dx) + 0.5, 0, 1)
        else:
            turn = rng.uniform(0, np.pi)
            along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
            cover = np.clip(radius * 0.8 - np.maximum(abs(along), abs(across) * rng.uniform(1, 4)) + 0.5, 0, 1)
        shade = (dy * rng.normal() + dx * rng.normal()) / radius * rng.uniform(0, 0.12)
        colour = palette[rng.integers(12)] + shade[..., None] + rng.uniform(0, 0.08) * texture[box]
        image[box] += cover[..., None] * (colour - image[box])
    if rng.random() < 0.3:  # out of focus
        image = (image + np.roll(image, 1, 0) + np.roll(image, 1, 1) + np.roll(image, (1, 1), (0, 1))) / 4
    grain = rng.standard_normal(image.shape) * rng.uniform(0, 0.02)
    return np.round(np.clip(image + grain, 0, 1) * 255).astype(np.uint8)


def natural_images(count: int, seed: int, size: int = 128) -> NDArray[np.uint8]:
    """(count, size, size, 3) dead leaves, the same for the same seed."""
    return np.stack([dead_leaves(seed * 1_000_003 + i, size) for i in range(count)])
