"""A second decoder, written from docs/bitstream.md alone: nothing of components/ is imported.

It is as slow as it is short, and reads one image. What it and the codec agree on is the format.
"""

import decimal
import hashlib
import json
import struct
import zlib
from functools import cache
from math import ceil, floor
from pathlib import Path

import torch
from safetensors.torch import load_file
from scipy.special import ndtr
from torch.nn import functional as F

LEVEL_ROWS = {  # (a level of -1 came before, left + upper)
    (False, 0): (1486, 56632, 7418),
    (False, 1): (1614, 55154, 8768),
    (False, 2): (1369, 53828, 10339),
    (True, -2): (20306, 33107, 12123),
    (True, -1): (17239, 33937, 14360),
    (True, 0): (13138, 38939, 13459),
    (True, 1): (14123, 39164, 12249),
    (True, 2): (15611, 39033, 10892),
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


def integers(x, bits):
    """[x 2^bits]: rounded, halves up."""
    return torch.floor(x.double() * 2.0**bits + 0.5).long()


def shifted(x, bits):
    """[x / 2^bits] of integers."""
    return (x + (1 << bits >> 1)) >> bits


def exponential(x, bits):
    """min([exp(x) 2^bits], 2^29 - 1)."""
    decimal.getcontext().prec = 40
    found = [min(round(decimal.Decimal(v).exp() * (1 << bits)), (1 << 29) - 1) for v in x.flatten().tolist()]
    return torch.tensor(found).reshape(x.shape)


def clipped(x):
    return x.clamp(-(2**23) + 1, 2**23 - 1)


def row(log):
    return shifted((log + 36164) * 8521212, 34).clamp(0, 63)


def decode(stream: bytes, folder: Path):
    """The latent y (C, h, w) before its inverse gain, exact, and the image (H, W, 3)."""
    magic, first, second, model, check = struct.unpack_from("<2sBB4sI", stream)
    version, quality, size_form, map_form = first // 16, first % 16, second // 64, second // 16 % 4
    assert magic == b"\xc0\x7a" and 2 <= version <= 4
    files = (folder / name for name in ("config.json", "model.safetensors"))
    assert model == hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()[:4]
    length = 14 + size_form
    sides, half = int.from_bytes(stream[12:length], "little"), 256 ** (1 + size_form / 2)
    width, height = int(sides % half) + 1, int(sides // half) + 1
    grid = [None, (8, 8), (4, 4), tuple(stream[length : length + 2])][map_form]
    length += 2 * (map_form == 3)
    bare = stream[:3] + bytes([second & 0xF0]) + stream[4:length]
    assert int.from_bytes(bare, "big") % 13 == second % 16
    coder = Coder(stream[length:])
    config = json.loads((folder / "config.json").read_text())
    half = load_file(folder / "model.safetensors")
    w = {name: tensor.double() for name, tensor in half.items()}
    rows = [gaussian_row(j) for j in range(64)]
    h, v = ceil(height / 16), ceil(width / 16)
    K = config["kernel"]
    fine = config.get("fine_entropy", False)
    W, f = (32639, 10) if fine else (127, 6)

    # The map, and the quality of every place.
    levels = {}
    for r in range(grid[0]) if grid else ():
        for c in range(grid[1]):
            lowered, total = -1 in levels.values(), levels.get((r, c - 1), 0) + levels.get((r - 1, c), 0)
            levels[r, c] = coder.symbol(LEVEL_ROWS[lowered, total]) - 1
    for step in range(1, version - 1):
        for cell, level in levels.items():
            if abs(level) >= step and coder.symbol(LEVEL_ROWS[False, 2]) == 2:
                levels[cell] += 1 if level > 0 else -1
    q = torch.full((h, v), quality)
    for r in range(h) if grid else ():
        for c in range(v):
            cell = (2 * r + 1) * grid[0] // (2 * h), (2 * c + 1) * grid[1] // (2 * v)
            q[r, c] = min(max(quality + levels[cell], 0), 9)

    def at(name, places, tensors=w):  # (1, channels, rows, columns)
        return tensors[name][places].permute(2, 0, 1)[None]

    def layer(name, x, sums, outputs=0, out_bits=10, used=None):
        """A layer of the entropy model: `sums` is torch's, exact here, as float64 holds every sum."""
        weight = w[f"{name}.weight"] if used is None else w[f"{name}.weight"] * used
        weight = weight.movedim(outputs, 0)
        e = []
        for one in weight.flatten(1).abs().amax(1).tolist():
            fitting = [e for e in range(out_bits - 10, 25) if one * 2**e <= W] or [out_bits - 10]
            e.append(max(fitting) if one else 7)
        whole = torch.stack([integers(one, k) for one, k in zip(weight, e, strict=True)])
        total = sums(x.double(), whole.double().movedim(0, outputs)).long()
        found = [
            shifted(one + integers(bias, k + 10), k + 10 - out_bits)
            for one, bias, k in zip(total[0], w[f"{name}.bias"], e, strict=True)
        ]
        return clipped(torch.stack(found))[None]

    def conv(name, x, padding=0, **options):
        return layer(name, x, lambda x, weight: F.conv2d(x, weight, padding=padding), **options)

    def grown(x, weight, bias=None):
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=(K - 1) // 2, output_padding=K % 2)

    def double(name, x, tensors):
        return grown(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def escaped():
        rest = 0
        for place in range(4):
            digit = coder.symbol([4096] * 16)
            rest += digit % 8 * 8**place
            if digit < 8:
                break
        return rest

    def read(mean, chosen):  # in the order channel, place
        bounds = [len(rows[j]) // 2 for j in chosen.reshape(-1).tolist()]
        symbols = [coder.symbol(rows[j]) - len(rows[j]) // 2 for j in chosen.reshape(-1).tolist()]
        for n, (symbol, b) in enumerate(zip(symbols, bounds, strict=True)):
            if fine and abs(symbol) == b:
                symbols[n] += escaped() if symbol > 0 else -escaped()
        return 2**f * torch.tensor(symbols, dtype=torch.int64).reshape(mean.shape) + mean

    # The hyper latent and the side information. All numbers are integers up to the pixels.
    qz = q[::4, ::4]
    z = read(
        integers(at("entropy.hyper_mean_QC", qz), f).clamp(-(2**22), 2**22),
        row(integers(at("entropy.hyper_log_scale_QC", qz), 14).clamp(-(2**22), 2**22)),
    )
    s = clipped(shifted(z * exponential(-at("entropy.hyper_gain.log_QC", qz), 24), f + 14))
    s = layer("entropy.hyper_synthesis.0", s, grown, outputs=1).relu()
    s = layer("entropy.hyper_synthesis.2", s, grown, outputs=1).relu()
    s = conv("entropy.hyper_synthesis.4", s, 1)[..., :h, :v]
    s = clipped(s + integers(at("entropy.quality_side_QS", q), 10))

    # The latent.
    log_u = w["entropy.log_spread_C"][None, :, None, None] + at("latent_gain.log_QC", q)
    inverse, u = exponential(-log_u, 24), exponential(log_u, 16)
    log_u = integers(log_u, 14).clamp(-(2**22), 2**22)
    anchors = (torch.arange(h)[:, None] + torch.arange(v)) % 2 == 0
    y = torch.zeros_like(u)
    for k, size in enumerate(config["groups"]):
        first = sum(config["groups"][:k])
        group = slice(first, first + size)
        known = s
        if k:
            seen = clipped(shifted(y * inverse, f + 14))[:, :first]
            known = torch.cat([s, conv(f"entropy.channel_context.{k - 1}.0", seen, 1).relu()], 1)
        for part in (anchors, ~anchors):
            context = torch.zeros(1, config["context_channels"], h, v, dtype=torch.int64)
            if part is not anchors:
                c = config["context_kernel"]
                odd = (torch.arange(c)[:, None] + torch.arange(c)) % 2 == 1
                seen = clipped(shifted(y * inverse, f + 14))[:, group]
                context = conv(f"entropy.spatial_context.{k}", seen, c // 2, used=odd)
            hidden = conv(f"entropy.aggregation.{k}.0", torch.cat([known, context], 1)).relu()
            mean, log_scale = conv(f"entropy.aggregation.{k}.2", hidden, out_bits=14).chunk(2, 1)
            m = shifted(mean * u[:, group], 30 - f).clamp(-(2**22), 2**22)
            chosen = row(log_scale.clamp(-9 * 2**14, 5 * 2**14) + log_u[:, group])
            y[:, group, part] = read(m[..., part], chosen[..., part])

    covered = bare[:8] + bare[12:] + struct.pack(f"{len(levels)}b", *levels.values())
    for latent in (z, y):
        numbers = latent.reshape(-1).tolist()
        covered += struct.pack(f"<{len(numbers)}i", *numbers)
    assert zlib.crc32(covered) == check
    assert coder.finished

    # Pixels.
    w = {name: tensor.float() for name, tensor in half.items()}
    y = y.float() / 2**f
    features = y * at("latent_inverse.log_QC", q, w).exp()
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
