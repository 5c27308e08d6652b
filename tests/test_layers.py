"""Our layers give CompressAI's numbers, in training too, and its coder comes without the rest of it."""

import json
import re
import subprocess
import sys

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.layers import AttentionBlock as TheirAttention
from compressai.layers import CheckerboardMaskedConv2d

from components.codec.attention import AttentionBlock
from components.codec.checkerboard import Checkerboard
from components.codec.elic import Attention
from components.codec.factorized import FactorizedDensity
from components.codec.likelihood import gaussian_likelihood
from components.codec.published import _current, is_weight
from components.paths import ROOT

CHANNELS = 6


def same(ours, theirs, *inputs):
    """Both give the same outputs, gradients and tensors, from the same noise."""
    found = []
    for layer in (ours, theirs):
        torch.manual_seed(1)
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = layer(*leaves)
        out.log().sum().backward() if (out > 0).all() else out.square().sum().backward()
        parameters = layer.named_parameters() if isinstance(layer, torch.nn.Module) else []
        found.append([out, *(x.grad for x in leaves), *(p.grad for _, p in sorted(parameters) if p.grad is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def with_weights_of(ours, theirs):
    weights = {name: value for name, value in theirs.state_dict().items() if is_weight(name)}
    assert {name: value.shape for name, value in ours.state_dict().items()} == {k: v.shape for k, v in weights.items()}
    ours.load_state_dict(weights)
    return ours


def made(layer, *arguments, **options):
    torch.manual_seed(0)
    return layer(*arguments, **options)


def test_attention():
    theirs = made(TheirAttention, CHANNELS)
    ours = made(AttentionBlock, CHANNELS)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    x_BCHW = torch.randn(2, CHANNELS, 5, 7)
    same(with_weights_of(ours, theirs), theirs, x_BCHW)
    silent = with_weights_of(Attention(CHANNELS), theirs)
    with torch.no_grad():
        assert torch.equal(silent(x_BCHW) + x_BCHW, theirs(x_BCHW))


@pytest.mark.parametrize("kernel", [3, 5])
def test_checkerboard(kernel):
    theirs = made(CheckerboardMaskedConv2d, CHANNELS, 4, kernel, padding=kernel // 2)
    ours = made(Checkerboard, CHANNELS, 4, kernel)
    assert torch.equal(ours.mask, theirs.mask)
    same(with_weights_of(ours, theirs), theirs, torch.randn(2, CHANNELS, 5, 7))
    assert torch.equal(ours.weight, theirs.weight)
    x_1CHW = torch.zeros(1, CHANNELS, 9, 9)
    x_1CHW[..., ::2, ::2] = x_1CHW[..., 1::2, 1::2] = 1  # one colour says nothing to its own
    assert torch.equal(ours(x_1CHW)[0, :, 4, 4], ours.bias)


@pytest.mark.parametrize("training", [False, True])
def test_gaussian(training):
    theirs = GaussianConditional(None, scale_bound=0.11).train(training)
    generator = torch.Generator().manual_seed(2)
    y, scales, means = (torch.randn(2, CHANNELS, 5, 7, generator=generator) for _ in range(3))
    y[0], scales[0, 0] = 9 * y[0], 0.01  # some likelihoods and scales are below their bounds
    same(lambda *x: gaussian_likelihood(*x, 0.11, training), lambda *x: theirs(*x)[1], y, scales, means)


@pytest.mark.parametrize("training", [False, True])
def test_learned_density(training):
    theirs, ours = made(EntropyBottleneck, CHANNELS), made(FactorizedDensity, CHANNELS)
    for (name, a), (_, b) in zip(sorted(ours.named_parameters()), sorted(theirs.named_parameters()), strict=True):
        assert torch.equal(a, b), name
    with torch.no_grad():
        for parameter in (*theirs.factors, theirs.quantiles):
            parameter += 0.3 * torch.randn_like(parameter)
    with_weights_of(ours, theirs).train(training)
    theirs.train(training)
    chances = _SecondOf(theirs)
    same(ours, chances, 6 * torch.randn(2, CHANNELS, 3, 4).contiguous(memory_format=torch.channels_last))


class _SecondOf(torch.nn.Module):
    """CompressAI's densities give the values first."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[1]


def test_old_names_of_a_density():
    assert _current("a.entropy_bottleneck._matrix2") == "a.entropy_bottleneck.matrices.2"
    assert _current("entropy_bottleneck._bias0") == "entropy_bottleneck.biases.0"
    assert _current("entropy_bottleneck._factor3") == "entropy_bottleneck.factors.3"
    assert _current("entropy_bottleneck._offset") == "entropy_bottleneck._offset"


def run(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


LOADED = "import json, sys; print(json.dumps([m for m in sys.modules if m.startswith({names})]))"


def test_a_codec_loads_neither_compressai_nor_what_it_needs():
    code = (
        "import numpy as np\n"
        "from components.codec.codec import Codec\n"
        "codec = Codec.from_pretrained('pretrained/codec/elic-micro')\n"
        "image = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)\n"
        "assert codec.decode(codec.encode([image], 4))[0].image.shape == image.shape\n"
    )
    assert run(code + LOADED.format(names=("compressai", "torch_geometric", "torch._dynamo", "sympy"))) == []


def test_steps_do_not_load_it_either():
    code = "import components.training.step_joint, components.evaluation.step_rate\n"
    assert run(code + LOADED.format(names=("compressai", "torch_geometric"))) == []


def test_compressai_itself_still_works_after_its_coder_was_loaded_alone():
    code = (
        "import json\n"
        "from components.codec.rans import ans, load_coder\n"
        "import compressai\n"
        "from compressai import ans as theirs\n"
        "from compressai.entropy_models import GaussianConditional\n"
        "coder = GaussianConditional([0.5, 1.0]).entropy_coder._encoder\n"
        "tables = [[0, 30000, 65535, 65536]], [4], [0]\n"
        "words = [m.RansEncoder().encode_with_indexes([0, 1, 0], [0, 0, 0], *tables) for m in (ans, theirs)]\n"
        "print(json.dumps([theirs is compressai.ans is load_coder(), isinstance(coder, ans.RansEncoder),"
        " words[0] == words[1]]))"
    )
    assert run(code) == [True, True, True]


def test_without_compressai_the_error_says_what_to_do():
    bare = [sys.executable, "-S", "-c", "import components.codec.rans"]  # -S: no installed library is found
    done = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"CotamError: .*make setup", done.stderr.splitlines()[-1])
