"""`cotam bench guidance`: every way is coded with its own maps and asked the same questions. On tiny models."""

import json

import numpy as np
import pytest
import torch

from benchmarks import guidance as bench
from benchmarks import ways
from components import config
from components.adapter import AdapterConfig, LatentAdapter
from components.codec.guidance import quantize
from components.evaluation.benchmarks import benchmark_scenes
from components.scenes import render
from components.scenes.labels import PATCH_CLASSES, attention_shares, patch_labels
from tests.models import tiny_clip_folder, tiny_llava_folder
from tests.small_checkout import tiny_codec_folder

IMAGES = 3


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    overrides = {
        "codec.elic.weights": str(tiny_codec_folder(root / "codec")),
        "mllm.micro-llava.weights": str(tiny_llava_folder(root / "llava")),
        "guidance.tower": str(tiny_clip_folder(root / "clip")),
        "evaluation.qualities": "[0, 8]",
        "evaluation.bootstrap": "20",
        "threads": "1",
    }
    return config.load(overrides=overrides)


@pytest.fixture(scope="module")
def adapter(settings, tmp_path_factory):
    from components.codec import Codec
    from components.mllm import load_mllm

    tower = load_mllm(settings.mllm["micro-llava"].weights).tower
    channels = Codec.from_pretrained(settings.codec["elic"].weights).config.latent_channels
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    sizes = AdapterConfig(latent_channels=channels, feature_dim=tower.width, grid=tower.grid, width=16, heads=2)
    adapter = LatentAdapter(sizes)
    adapter.save(folder)
    torch.nn.init.normal_(adapter.out_projection.weight, std=2)
    adapter.save(folder.with_name("loud"))
    return folder


def test_every_way_is_compared_with_the_codec_alone(settings, adapter, capsys):
    result = json.loads(json.dumps(bench.measure(IMAGES, settings, adapter)))
    assert set(result["ways"]) == {"clean", *bench.WAYS}
    sizes = {way: [point["bpp"] for point in entry["curve"]] for way, entry in result["ways"].items()}
    assert sizes["plain+adapter"] == sizes["plain"] and sizes["guided+adapter"] == sizes["guided"]
    assert all(sizes[way] != sizes["plain"] for way in ("guided", "shuffled", "graph"))
    # A new adapter says nothing, so it changes no answer.
    scores = {way: [point["scores"] for point in entry["curve"]] for way, entry in result["ways"].items()}
    assert scores["plain+adapter"] == scores["plain"] and scores["guided+adapter"] == scores["guided"]
    assert result["levels"]["guided"] == result["levels"]["shuffled"]
    ways.print_ways(result, bench.WAYS)
    said = capsys.readouterr().out
    assert all(name in said for name in bench.WAYS.values())


def test_the_adapter_is_heard_where_it_is_named(settings, adapter, monkeypatch):
    heard, ask = [], ways.Asker._ask

    def listening(asker, views, sizes):
        heard.append([view.residual_ND is not None and bool(view.residual_ND.any()) for view in views])
        return ask(asker, views, sizes)

    monkeypatch.setattr(ways.Asker, "_ask", listening)
    bench.measure(IMAGES, settings, adapter.with_name("loud"))
    expected = [False, *(way.endswith("+adapter") for _ in settings.evaluation.qualities for way in bench.WAYS)]
    assert heard == [[loud] * IMAGES for loud in expected]


def test_maps_are_those_of_the_pictures(settings):
    scenes = list(benchmark_scenes(IMAGES, "bench", bench.SEED, 128))
    maps = bench.level_maps({str(i): render(scene) for i, scene in enumerate(scenes)}, scenes, settings)
    for scene, graph in zip(scenes, maps["graph"], strict=True):
        shares = torch.from_numpy(attention_shares(patch_labels(scene, 8))).view(1, 8, 8)
        assert np.array_equal(graph, quantize(shares, settings.guidance.grid, settings.guidance.k)[0])
    for guided, shuffled in zip(maps["guided"], maps["shuffled"], strict=True):
        assert sorted(guided.flat) == sorted(shuffled.flat)
    assert not np.array_equal(maps["guided"], maps["shuffled"])


def test_a_glance_is_shared_among_the_objects():
    labels = np.zeros((2, 6, len(PATCH_CLASSES)), int)
    text = list(PATCH_CLASSES).index("text")
    labels[0, 1, 0] = labels[0, 4, 0] = 3
    labels[0, 2:4, text] = 5
    expected = [[0, 0.4, 0.1, 0.1, 0.4, 0], [0] * 6]
    assert np.allclose(attention_shares(labels), expected)
    assert np.allclose(attention_shares(torch.from_numpy(labels)), expected)
