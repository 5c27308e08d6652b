"""A second DCAE, from the paper and the release's tensor names alone: one function over a dictionary of tensors.

It shares no code with `components.codec`. Images have sides of which windows are whole parts at every resolution; z is
coded with CompressAI's learned density, which the release uses, too.
"""

from dataclasses import dataclass

import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """What the release fixes in its code; the defaults are its values."""

    features: tuple[int, int, int] = (96, 144, 256)
    swin: tuple[int, int, int] = (1, 2, 12)
    heads: tuple[int, int, int] = (8, 16, 32)  # channels per head
    n: int = 192
    m: int = 320
    z: int = 192
    slices: int = 5
    entries: int = 128
    dictionary_heads: int = 20
    dictionary_head: int = 32
    hidden: tuple[int, int] = (224, 128)
    hyper_head: int = 32
    window: int = 8
    hyper_window: int = 4
    rate: int = 4


SMALL = Sizes((8, 12, 16), (1, 2, 3), (4, 6, 4), 8, 20, 6, 5, 7, 3, 4, (9, 8), 4, hyper_window=2)


def shapes(s: Sizes) -> dict[str, tuple[int, ...]]:
    """Every weight of the release, by its name."""
    found: dict[str, tuple[int, ...]] = {}

    def conv(name: str, i: int, o: int, k: int, bias: bool = True, transposed: bool = False, groups: int = 1) -> None:
        found[f"{name}.weight"] = (i, o, k, k) if transposed else (o, i // groups, k, k)
        if bias:
            found[f"{name}.bias"] = (o,)

    def linear(name: str, i: int, o: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (o, i), (o,)

    def norm(name: str, c: int) -> None:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (c,)

    def residuals(name: str, c: int) -> None:
        for j in (1, 2, 3):
            conv(f"{name}.res{j}.conv1", c, c // 2, 1)
            conv(f"{name}.res{j}.conv2", c // 2, c // 2, 3)
            conv(f"{name}.res{j}.conv3", c // 2, c, 1)

    def glu(name: str, c: int) -> None:
        linear(f"{name}.fc1", c, s.rate * c)
        conv(f"{name}.dwconv.dwconv", s.rate * c // 2, s.rate * c // 2, 3, groups=s.rate * c // 2)
        linear(f"{name}.fc2", s.rate * c // 2, c)

    def swin(name: str, c: int, blocks: int, head: int, window: int) -> None:
        for i in range(blocks):
            layer = f"{name}.layers.{i}"
            norm(f"{layer}.ln1", c)
            found[f"{layer}.msa.relative_position_params"] = (c // head, 2 * window - 1, 2 * window - 1)
            linear(f"{layer}.msa.embedding_layer", c, 3 * c)
            linear(f"{layer}.msa.linear", c, c)
            norm(f"{layer}.ln2", c)
            glu(f"{layer}.mlp", c)
            found[f"{layer}.res_scale_1.scale"] = found[f"{layer}.res_scale_2.scale"] = (c,)
        conv(f"{name}.conv", c, c, 3)

    a, b, c = s.features
    for stage, (i, o) in enumerate(((3, a), (a, b), (b, c))):
        conv(f"g_a.{2 * stage}.conv", i, o, 5)
        residuals(f"g_a.{2 * stage}", o)
        swin(f"g_a.{2 * stage + 1}", o, s.swin[stage], s.heads[stage], s.window)
    conv("g_a.6", c, s.m, 5)
    conv("g_s.0", s.m, c, 5, transposed=True)
    for stage, (i, o) in enumerate(((c, b), (b, a), (a, 3))):
        swin(f"g_s.{2 * stage + 1}", i, s.swin[2 - stage], s.heads[2 - stage], s.window)
        residuals(f"g_s.{2 * stage + 2}", i)
        conv(f"g_s.{2 * stage + 2}.conv", i, o, 5, transposed=True)

    conv("h_a.0.conv", s.m, s.n, 5)
    residuals("h_a.0", s.n)
    swin("h_a.1", s.n, 1, s.hyper_head, s.hyper_window)
    conv("h_a.2", s.n, s.z, 3)
    for name in ("h_z_s1", "h_z_s2"):
        conv(f"{name}.0", s.z, s.n, 3, transposed=True)
        swin(f"{name}.1", s.n, 1, s.hyper_head, s.hyper_window)
        residuals(f"{name}.2", s.n)
        conv(f"{name}.2.conv", s.n, s.m, 5, transposed=True)

    d, size = s.dictionary_heads * s.dictionary_head, s.m // s.slices
    found["dt"] = (s.entries, d)
    for k in range(s.slices):
        name, known = f"dt_cross_attention.{k}", 2 * s.m + size * k
        found[f"{name}.scale"] = (s.dictionary_heads, 1, 1)
        linear(f"{name}.x_trans", known, d)
        norm(f"{name}.ln_scale", d)
        conv(f"{name}.msa.s", d, d, 1)
        conv(f"{name}.msa.spatial_atte.conv1", 2, 1, 7, bias=False)
        for i in range(3):
            conv(f"{name}.msa.dense.conv_layers.{i}.1.in_trans", d, d, 1)
            conv(f"{name}.msa.dense.conv_layers.{i}.1.dw_conv", d, d, 3, groups=d)
            conv(f"{name}.msa.dense.conv_layers.{i}.1.out_trans", d, d, 1)
        conv(f"{name}.msa.dense.proj", 4 * d, d, 1)
        for part in ("q_trans", "k", "linear"):
            linear(f"{name}.{part}", d, d)
        for part in ("lnx", "dict_ln", "ln_mlp"):
            norm(f"{name}.{part}", d)
        glu(f"{name}.mlp", d)
        linear(f"{name}.output_trans.0", d, s.m)
        for j in (1, 2, 3):
            found[f"{name}.res_scale_{j}.scale"] = (d,)
        for part, more in (("cc_mean", 0), ("cc_scale", 0), ("lrp", size)):
            widths = (known + s.m + more, *s.hidden, size)
            for layer in range(3):
                conv(f"{part}_transforms.{k}.{2 * layer}", widths[layer], widths[layer + 1], 3)
    return found


def random_weights(s: Sizes, seed: int) -> Weights:
    """Weights of a release that never was, such that everything in it matters; with z's density and derived tables."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes(s).items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith(".scale") or (len(shape) == 1 and name.endswith("weight")):
            weights[name] = 1 + 0.1 * noise
        elif len(shape) > 1 and name != "dt":
            fan_in = shape[0] if name.startswith(("g_s", "h_z")) and len(shape) == 4 else shape[1]
            taps = shape[2] ** 2 if len(shape) == 4 else 1
            strided = name.startswith(("g_s", "h_z")) and shape[2:] in ((5, 5), (3, 3))
            weights[name] = noise * 0.6 / (fan_in * taps / (4 if strided else 1)) ** 0.5
        else:
            weights[name] = noise if name == "dt" else 0.1 * noise
    weights["g_a.6.weight"] *= 20  # so that latents are not all zero
    weights["g_s.0.weight"] /= 20
    weights["h_a.2.weight"] *= 6
    for k in range(s.slices):
        weights[f"cc_scale_transforms.{k}.4.bias"] += 4
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        density = EntropyBottleneck(s.z)
        with torch.no_grad():
            for parameter in (*density.matrices, *density.biases, *density.factors):
                parameter += 0.3 * torch.randn_like(parameter)
            density.quantiles[:, 0, 1] = torch.randn(s.z)
    weights |= {f"entropy_bottleneck.{name}": value.detach() for name, value in density.state_dict().items()}
    weights |= {"gaussian_conditional.scale_table": torch.ones(64), "gaussian_conditional._offset": torch.ones(64)}
    return weights


class Reference:
    """The release's forward pass, in evaluation mode."""

    def __init__(self, weights: Weights, sizes: Sizes):
        self.w, self.s = weights, sizes
        self.density = EntropyBottleneck(sizes.z).eval()
        self.density.to(weights["dt"].dtype)
        part = "entropy_bottleneck."
        self.density.load_state_dict({k.removeprefix(part): v for k, v in weights.items() if k.startswith(part)})

    @torch.no_grad()
    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """Image (B, 3, H, W) -> y, y_hat, x_hat, and the likelihoods of y and z."""
        s = self.s
        y = x
        for stage in range(3):
            y = self._residuals(f"g_a.{2 * stage}", self._down(f"g_a.{2 * stage}.conv", y))
            y = self._swin(f"g_a.{2 * stage + 1}", y, s.swin[stage], s.heads[stage], s.window)
        y = self._down("g_a.6", y)

        z = self._residuals("h_a.0", self._down("h_a.0.conv", y))
        z = self._down("h_a.2", self._swin("h_a.1", z, 1, s.hyper_head, s.hyper_window))
        z_hat, z_likelihood = self.density(z)
        told = []
        for name in ("h_z_s1", "h_z_s2"):
            t = self._swin(f"{name}.1", self._up(f"{name}.0", z_hat), 1, s.hyper_head, s.hyper_window)
            told.append(self._up(f"{name}.2.conv", self._residuals(f"{name}.2", t)))

        decoded, likelihoods = [], []
        for k, part in enumerate(y.chunk(s.slices, 1)):
            query = torch.cat([*told, *decoded], 1)
            support = torch.cat([query, self._dictionary(f"dt_cross_attention.{k}", query)], 1)
            mean = self._stack(f"cc_mean_transforms.{k}", support)
            scale = self._stack(f"cc_scale_transforms.{k}", support).clamp(min=0.11)
            found = (part - mean).round() + mean
            normal = torch.distributions.Normal(0.0, 1.0)
            away = (found - mean).abs()
            chance = normal.cdf((0.5 - away) / scale) - normal.cdf((-0.5 - away) / scale)
            likelihoods.append(chance.clamp(min=1e-9))
            found = found + 0.5 * self._stack(f"lrp_transforms.{k}", torch.cat([support, found], 1)).tanh()
            decoded.append(found)
        y_hat = torch.cat(decoded, 1)

        x_hat = self._up("g_s.0", y_hat)
        for stage in range(3):
            x_hat = self._swin(f"g_s.{2 * stage + 1}", x_hat, s.swin[2 - stage], s.heads[2 - stage], s.window)
            x_hat = self._residuals(f"g_s.{2 * stage + 2}", x_hat)
            x_hat = self._up(f"g_s.{2 * stage + 2}.conv", x_hat)
        return {"y": y, "y_hat": y_hat, "x_hat": x_hat, "py": torch.cat(likelihoods, 1), "pz": z_likelihood}

    def _conv(self, name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self.w[f"{name}.weight"]
        return F.conv2d(x, weight, self.w.get(f"{name}.bias"), stride, weight.shape[-1] // 2, groups=groups)

    def _down(self, name: str, x: Tensor) -> Tensor:
        return self._conv(name, x, stride=2)

    def _up(self, name: str, x: Tensor) -> Tensor:
        weight = self.w[f"{name}.weight"]
        return F.conv_transpose2d(x, weight, self.w[f"{name}.bias"], 2, weight.shape[-1] // 2, output_padding=1)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def _residuals(self, name: str, x: Tensor) -> Tensor:
        for j in (1, 2, 3):
            inside = self._conv(f"{name}.res{j}.conv1", x).relu()
            inside = self._conv(f"{name}.res{j}.conv2", inside).relu()
            x = x + self._conv(f"{name}.res{j}.conv3", inside)
        return x

    def _stack(self, name: str, x: Tensor) -> Tensor:
        x = F.gelu(self._conv(f"{name}.0", x))
        return self._conv(f"{name}.4", F.gelu(self._conv(f"{name}.2", x)))

    def _glu(self, name: str, x: Tensor) -> Tensor:
        value, gate = self._linear(f"{name}.fc1", x).chunk(2, -1)
        value = self._conv(f"{name}.dwconv.dwconv", value.movedim(-1, 1), groups=value.shape[-1]).movedim(1, -1)
        return self._linear(f"{name}.fc2", F.gelu(value) * gate)

    def _swin(self, name: str, x: Tensor, blocks: int, head: int, window: int) -> Tensor:
        t = x.movedim(1, -1)
        for i in range(blocks):
            layer = f"{name}.layers.{i}"
            attended = self._attention(f"{layer}.msa", self._norm(f"{layer}.ln1", t), head, window, shifted=i % 2 == 1)
            t = t * self.w[f"{layer}.res_scale_1.scale"] + attended
            mixed = self._glu(f"{layer}.mlp", self._norm(f"{layer}.ln2", t))
            t = t * self.w[f"{layer}.res_scale_2.scale"] + mixed
        return x + self._conv(f"{name}.conv", t.movedim(-1, 1))

    def _attention(self, name: str, x: Tensor, head: int, p: int, shifted: bool) -> Tensor:
        """Place by place: who may see whom is decided for the whole picture, not window by window."""
        batch, height, width, channels = x.shape
        shift = p // 2 if shifted else 0
        heads = channels // head
        rows = torch.arange(height).repeat_interleave(width)
        columns = torch.arange(width).repeat(height)
        moved_rows, moved_columns = (rows - shift) % height, (columns - shift) % width
        window = (moved_rows // p) * width + moved_columns // p
        wrapped = 2 * (rows < shift).long() + (columns < shift).long()  # brought to the far side by the shift
        visible = (window[:, None] == window[None, :]) & (wrapped[:, None] == wrapped[None, :])
        bias = self.w[f"{name}.relative_position_params"]
        apart_rows = (moved_rows % p)[:, None] - (moved_rows % p)[None, :] + p - 1
        apart_columns = (moved_columns % p)[:, None] - (moved_columns % p)[None, :] + p - 1
        q, k, v = self._linear(f"{name}.embedding_layer", x).reshape(batch, -1, 3, heads, head).permute(2, 0, 3, 1, 4)
        scores = torch.einsum("beic,bejc->beij", q, k) / head**0.5 + bias[:, apart_rows, apart_columns]
        weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
        found = torch.einsum("beij,bejc->biec", weights, v).reshape(batch, height, width, channels)
        return self._linear(f"{name}.linear", found)

    def _dictionary(self, name: str, x: Tensor) -> Tensor:
        heads = self.s.dictionary_heads
        t = self._linear(f"{name}.x_trans", x.movedim(1, -1))
        outputs = [self._conv(f"{name}.msa.s", self._norm(f"{name}.ln_scale", t).movedim(-1, 1))]
        for i in range(3):
            layer = f"{name}.msa.dense.conv_layers.{i}.1"
            inside = F.gelu(self._conv(f"{layer}.in_trans", F.gelu(outputs[-1])))
            inside = F.gelu(self._conv(f"{layer}.dw_conv", inside, groups=inside.shape[1]))
            outputs.append(self._conv(f"{layer}.out_trans", inside))
        dense = self._conv(f"{name}.msa.dense.proj", torch.cat(outputs, 1))
        summary = torch.stack([dense.mean(1), dense.max(1).values], 1)
        dense = dense * self._conv(f"{name}.msa.spatial_atte.conv1", summary).sigmoid()
        t = dense.movedim(1, -1) + t * self.w[f"{name}.res_scale_1.scale"]

        entries = self._norm(f"{name}.dict_ln", self.w["dt"])
        q = self._linear(f"{name}.q_trans", self._norm(f"{name}.lnx", t)).unflatten(-1, (heads, -1))
        k = self._linear(f"{name}.k", entries).unflatten(-1, (heads, -1))
        scores = torch.einsum("bhwec,nec->bhwen", q, k) * self.w[f"{name}.scale"][:, :, 0]
        read = torch.einsum("bhwen,nec->bhwec", scores.softmax(-1), entries.unflatten(-1, (heads, -1))).flatten(-2)
        t = self._linear(f"{name}.linear", read) + t * self.w[f"{name}.res_scale_2.scale"]
        t = self._glu(f"{name}.mlp", self._norm(f"{name}.ln_mlp", t)) + t * self.w[f"{name}.res_scale_3.scale"]
        return self._linear(f"{name}.output_trans.0", t).movedim(-1, 1)
