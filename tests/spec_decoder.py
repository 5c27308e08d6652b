"""A second decoder, written from docs/bitstream.md alone: nothing of components/ is imported.

It is as slow as it is short, and reads one image. What it and the codec agree on is the format.
"""

import hashlib
import json
import struct
import zlib
from functools import cache
from math import ceil, floor, log
from pathlib import Path

import torch
from safetensors.torch import load_file
from scipy.special import ndtr
from torch.nn import functional as F

LEVEL_ROWS = {
    -2: (34000, 27536, 4000),
    -1: (23000, 36536, 6000),
    0: (14000, 39536, 12000),
    1: (6000, 35536, 24000),
    2: (3000, 26536, 36000),
}


class Coder:
    """rANS: 64-bit state, 32-bit words, 16-bit frequencies."""

    def __init__(self, payload: bytes):
        self.words = struct.unpack(f"<{len(payload) // 4}I", payload)
        self.x, self.next = self.words[0] + (self.words[1] << 32), 2

    def symbol(self, frequencies) -> int:
        low, start, symbol = self.x % 65536, 0, 0
        while low >= start + frequencies[symbol]:
            start, symbol = start + frequencies[symbol], symbol + 1
        frequency = frequencies[symbol]
        self.x = frequency * (self.x // 65536) + low - start
        if self.x < 1 << 31:
            self.x, self.next = (self.x << 32) + self.words[self.next], self.next + 1
        return symbol

    @property
    def finished(self) -> bool:
        return self.x == 1 << 31 and self.next == len(self.words)


@cache
def gaussian_row(j: int) -> list[int]:
    scale = 0.11 * (256 / 0.11) ** (j / 63)
    b = ceil(8 * scale) + 7
    n = 2 * b + 1
    row = [floor((ndtr((s + 0.5) / scale) - ndtr((s - 0.5) / scale)) * (65536 - n)) + 1 for s in range(-b, b + 1)]
    row[b] += 65536 - sum(row)
    return row


def index(scale):
    return torch.round(63 * torch.log(scale.clamp(0.11, 256) / 0.11) / log(256 / 0.11)).long()


def sixty_fourths(mean):
    return torch.round(64 * mean) / 64


def decode(stream: bytes, folder: Path):
    """The latent y (C, h, w) before its inverse gain, exact, and the image (H, W, 3)."""
    magic, version, model, width, height, quality, code = struct.unpack_from("<4sB4sHHBB", stream)
    assert (magic, version) == (b"\x89CTM", 1)
    assert model == hashlib.sha256((folder / "model.safetensors").read_bytes()).digest()[:4]
    (check,) = struct.unpack_from("<I", stream, 15)
    extra = stream[19:21] if code == 255 else b""
    grid = tuple(extra) if extra else (code, code) if code else None
    coder = Coder(stream[19 + len(extra) :])
    config = json.loads((folder / "config.json").read_text())
    half = load_file(folder / "model.safetensors")
    w = {name: tensor.double() for name, tensor in half.items()}
    rows = [gaussian_row(j) for j in range(64)]
    h, v = ceil(height / 16), ceil(width / 16)
    K = config["kernel"]

    # The map, and the quality of every place.
    levels = {}
    for r in range(grid[0]) if grid else ():
        for c in range(grid[1]):
            levels[r, c] = coder.symbol(LEVEL_ROWS[levels.get((r, c - 1), 0) + levels.get((r - 1, c), 0)]) - 1
    q = torch.full((h, v), quality)
    for r in range(h) if grid else ():
        for c in range(v):
            cell = (2 * r + 1) * grid[0] // (2 * h), (2 * c + 1) * grid[1] // (2 * v)
            q[r, c] = min(max(quality + levels[cell], 0), 9)

    def at(name, places, tensors=w):  # (1, channels, rows, columns)
        return tensors[name][places].permute(2, 0, 1)[None]

    def conv(name, x, padding=0):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding)

    def double(name, x, tensors=w):
        padding = {"stride": 2, "padding": (K - 1) // 2, "output_padding": K % 2}
        return F.conv_transpose2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], **padding)

    def read(mean, row):  # in the order channel, place
        b = [len(r) // 2 for r in rows]
        symbols = [coder.symbol(rows[j]) - b[j] for j in row.reshape(-1).tolist()]
        return torch.tensor(symbols, dtype=torch.float64).reshape(mean.shape) + mean

    # The hyper latent and the side information.
    qz = q[::4, ::4]
    z = read(sixty_fourths(at("entropy.hyper_mean_QC", qz)), index(at("entropy.hyper_log_scale_QC", qz).exp()))
    s = z / at("entropy.hyper_gain.log_QC", qz).exp()
    s = double("entropy.hyper_synthesis.0", s).relu()
    s = double("entropy.hyper_synthesis.2", s).relu()
    s = conv("entropy.hyper_synthesis.4", s, 1)[..., :h, :v] + at("entropy.quality_side_QS", q)

    # The latent.
    u = w["entropy.log_spread_C"].exp()[None, :, None, None] * at("latent_gain.log_QC", q).exp()
    anchors = (torch.arange(h)[:, None] + torch.arange(v)) % 2 == 0
    y = torch.zeros_like(u)
    for k, size in enumerate(config["groups"]):
        first = sum(config["groups"][:k])
        group = slice(first, first + size)
        known = s
        if k:
            known = torch.cat([s, conv(f"entropy.channel_context.{k - 1}.0", (y / u)[:, :first], 1).relu()], 1)
        for part in (anchors, ~anchors):
            context = torch.zeros(1, config["context_channels"], h, v, dtype=torch.float64)
            if part is not anchors:
                name, c = f"entropy.spatial_context.{k}", config["context_kernel"]
                odd = (torch.arange(c)[:, None] + torch.arange(c)) % 2 == 1
                context = F.conv2d((y / u)[:, group], w[f"{name}.weight"] * odd, w[f"{name}.bias"], padding=c // 2)
            hidden = conv(f"entropy.aggregation.{k}.0", torch.cat([known, context], 1)).relu()
            mean, log_scale = conv(f"entropy.aggregation.{k}.2", hidden).chunk(2, 1)
            m = sixty_fourths(mean * u[:, group])[..., part]
            y[:, group, part] = read(m, index(log_scale.clamp(-9, 5).exp() * u[:, group])[..., part])

    covered = stream[:15] + extra + struct.pack(f"{len(levels)}b", *levels.values())
    for latent in (z, y):
        numbers = (64 * latent).long().reshape(-1).tolist()
        covered += struct.pack(f"<{len(numbers)}i", *numbers)
    assert zlib.crc32(covered) == check
    assert coder.finished

    # Pixels.
    w = {name: tensor.float() for name, tensor in half.items()}
    features = y.float() * at("latent_inverse.log_QC", q, w).exp()
    for i in range(3):
        features = double(f"up.{i}", features, w)
        places = q.repeat_interleave(2 ** (i + 1), 0).repeat_interleave(2 ** (i + 1), 1)
        features = features * at(f"synthesis_inverse.{i}.log_QC", places, w).exp()
        for branch in range(config["blocks"]):
            name, added = f"synthesis.{i}.branches.{branch}", features
            for layer, padding in ((0, 0), (2, 1), (4, 0)):
                weight, bias = w[f"{name}.{layer}.weight"], w[f"{name}.{layer}.bias"]
                added = F.conv2d(added.relu() if layer else added, weight, bias, padding=padding)
            features = features + added
        if i == 0:
            features = features + attention(f"synthesis.{i}.branches.{config['blocks']}", features, w)
    image = double("up.3", features, w)[0, :, :height, :width] + 0.5
    return y[0], image.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()


def attention(name: str, x, w):
    """CompressAI's attention block without its skip, by CompressAI itself."""
    from compressai.layers import AttentionBlock

    block = AttentionBlock(x.shape[1])
    block.load_state_dict({key.removeprefix(f"{name}."): t for key, t in w.items() if key.startswith(f"{name}.")})
    with torch.no_grad():
        return block.conv_a(x) * torch.sigmoid(block.conv_b(x))
