"""`cotam bench codec`: what is timed is what the pipeline does, and C16 is answered by its rule. On tiny models."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import codec as bench
from components import config
from components.codec import Codec
from components.codec.container import unpack
from components.mllm import load_mllm
from components.paths import Paths
from tests.models import tiny_llava_folder
from tests.small_checkout import scenes, tiny_codec_folder

SIZES = config.load(overrides={"adapter.width": "16", "adapter.heads": "2"}).adapter


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return tiny_codec_folder(root / "codec"), tiny_llava_folder(root / "llava")


@pytest.fixture(scope="module")
def models(folders):
    return Codec.from_pretrained(folders[0]), load_mllm(folders[1])


@pytest.fixture
def adapter(models, tmp_path):
    codec, mllm = models
    found, trained = bench.adapter_between(codec, mllm.tower, SIZES, tmp_path / "nowhere")
    assert not trained
    return found


def guide(pictures):
    return np.array([[[1, 0], [0, -1]]] * len(pictures), np.int8)


def test_both_ways_are_those_of_the_evaluation(models, adapter):
    codec, mllm = models
    torch.nn.init.normal_(adapter.out_projection.weight, std=2)
    [picture] = scenes(1)
    encode, decode = bench.plain(codec, mllm)
    stream = encode(picture)
    assert unpack(stream)[0].grid is None
    [view] = decode(stream)
    assert view.residual_ND is None
    assert torch.equal(view.pixels_3HW, mllm.views([codec.decode([stream])[0].image])[0].pixels_3HW)

    encode, decode = bench.cotam(codec, mllm, guide, adapter)
    stream = encode(picture)
    assert unpack(stream)[0].grid == (2, 2)
    [view], [expected] = decode(stream), mllm.decoded_views(codec.decode([stream]), adapter)
    assert view.residual_ND.any()
    assert torch.equal(view.residual_ND, expected.residual_ND)
    assert torch.equal(view.pixels_3HW, expected.pixels_3HW)


def test_a_trained_adapter_is_taken_when_it_has_the_size_of_the_settings(models, adapter, tmp_path):
    codec, mllm = models
    adapter.save(tmp_path / "adapter")
    found, trained = bench.adapter_between(codec, mllm.tower, SIZES, tmp_path / "adapter")
    assert trained
    assert torch.equal(found.in_projection.weight, adapter.in_projection.weight)
    wider = SIZES.model_copy(update={"width": 32})
    found, trained = bench.adapter_between(codec, mllm.tower, wider, tmp_path / "adapter")
    assert (found.config.width, found.config.heads, trained) == (32, 2, False)
    assert not found.training


def test_times_are_of_pairs_in_turns_on_the_same_picture(monkeypatch):
    done, clock = [], [0.0]
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def way(name, seconds):
        def work(given):
            done.append((name, given))
            clock[0] += seconds
            return f"{name} {given}"

        return work

    ways = (way("plain", 0.01), way("show", 0.01)), (way("guided", 0.02), way("adapt", 0.03))
    spent = bench.times(ways, ["a", "b"], "nothing")
    assert done[4:] == [
        *(("guided", "a"), ("plain", "a"), ("adapt", "guided a"), ("show", "plain a")),
        *(("plain", "b"), ("guided", "b"), ("show", "plain b"), ("adapt", "guided b")),
    ]
    for name, plain_ms, cotam_ms in (("encode", 10, 20), ("decode", 10, 30), ("total", 20, 50)):
        ratio = dict.fromkeys(("median", "lower_quartile", "upper_quartile"), cotam_ms / plain_ms)
        assert spent[name] == {"pairs": 2, "plain_ms": plain_ms, "cotam_ms": cotam_ms, "ratio": ratio}


@pytest.mark.parametrize(
    ("encode", "decode", "holds"),
    [(1.029, 1.052, True), (1.1, 0.98, True), (1.101, 1.0, False), (1.0, 1.101, False)],
)
def test_c16_holds_when_both_overheads_are_at_most_ten_per_cent(encode, decode, holds):
    spent = {"encode": {"ratio": {"median": encode}}, "decode": {"ratio": {"median": decode}}}
    found = bench.verdict(spent)
    assert found == {
        "encode": pytest.approx(100 * (encode - 1)),
        "decode": pytest.approx(100 * (decode - 1)),
        "holds": holds,
    }


@pytest.fixture
def run(folders, monkeypatch, tmp_path):
    """Run the whole command on two small photographs, in a checkout where nothing was trained."""

    def run(*arguments):
        names = [str(folder) for folder in folders]
        small = {"--codec": names[0], "--mllm": names[1], "--scenes": "2", "--rounds": "1", "--threads": "1"}
        words = [word for pair in small.items() for word in pair]
        monkeypatch.setattr("sys.argv", ["codec.py", *words, *arguments])
        return bench.main()

    pictures = {str(number): picture for number, picture in enumerate(scenes(2, first=50))}
    monkeypatch.setattr(bench, "photographs", lambda: pictures)
    monkeypatch.setattr(bench, "CHECKOUT", Paths(tmp_path))
    monkeypatch.setattr(bench, "use_threads", lambda count: None)
    return run


def test_it_reports_times_rates_and_the_verdict(run, capsys):
    assert run("--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["adapter"] is None
    assert set(result["time"]) == set(result["c16"]) == {"photographs", "scenes, bench"}
    for name, spent in result["time"].items():
        assert set(spent) == {"encode", "decode", "total"}
        assert result["c16"][name] == bench.verdict(spent)
    assert set(result["rate"]) == {"photographs", "scenes, bench", "scenes, train"}
    bench._print(result)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("adapter ")] == [f"adapter {bench.UNTRAINED}"]
    assert sum(line.startswith(("holds on ", "does not hold on ")) for line in lines) == 2
