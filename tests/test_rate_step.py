"""The step `rate`: what it says of the files is true of the files, and nothing else goes over the wire."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from components import config
from components.codec import Codec
from components.codec.container import unpack
from components.codec.level_map import cost_bits
from components.evaluation import step_rate
from components.evaluation.coding import header_bits, load_guide
from components.evaluation.pictures import benchmark_pictures, psnr
from components.evaluation.rate import map_costs
from components.evaluation.streams import Setting
from components.step_inputs import Params, StepInputs
from components.steps import declared, find, run_step
from tests.small_checkout import CODEC, scenes, write_checkout, write_small_benchmarks

SETTINGS = {"evaluation.qualities": "[0, 4]"}
METHODS = {CODEC: ["0", "4"], "cotam": ["0", "4"], "jpeg": ["5", "50"], "webp": ["5"]}
STYLES = {"bench": 6, "train": 3}
GRID = config.load().guidance.grid


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    paths = write_checkout(tmp_path_factory.mktemp("checkout"), SETTINGS)
    write_small_benchmarks(paths)
    run_step("rate", paths=paths)
    return paths


@pytest.fixture(scope="module")
def rates(checkout):
    return json.loads((checkout.rate(CODEC) / "rates.json").read_text())


@pytest.fixture(scope="module")
def files(checkout):
    with zipfile.ZipFile(checkout.rate(CODEC) / "streams.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def settings():
    return [
        (style, method, quality)
        for style in STYLES
        for method in METHODS
        for quality in METHODS[method]
        if style == "bench" or method not in ("jpeg", "webp")
    ]


def coded(files, style, method, quality):
    """The files of one setting by image."""
    prefix = f"{method}/{quality}/{style}/"
    return {name.removeprefix(prefix).split(".")[0]: files[name] for name in files if name.startswith(prefix)}


def test_every_image_is_coded_by_every_method_at_every_quality(rates, files):
    assert len(files) == sum(STYLES[style] for style, _, _ in settings())
    for style, images in STYLES.items():
        assert rates["styles"][style]["images"] == [f"{number:06d}" for number in range(images)]
        assert rates["styles"][style]["pixels"] == [128 * 128] * images
        methods = rates["styles"][style]["methods"]
        coded_with = [(style, method, quality) for method, qualities in methods.items() for quality in qualities]
        assert sorted(coded_with) == sorted(setting for setting in settings() if setting[0] == style)


def test_rates_are_the_sizes_of_the_files(rates, files):
    for style, method, quality in settings():
        entry = rates["styles"][style]["methods"][method][quality]
        found = coded(files, style, method, quality)
        assert list(found) == rates["styles"][style]["images"]
        assert entry["bits"] == [8 * len(content) for content in found.values()]
        if method in (CODEC, "cotam"):
            assert set(entry["header_bits"]) == {8 * 14}
        else:
            assert all(0 < header < bits for header, bits in zip(entry["header_bits"], entry["bits"], strict=True))


def test_a_map_that_is_not_square_is_part_of_the_header(checkout):
    codec = Codec.from_pretrained(checkout.root / "pretrained/codec/elic-micro")
    [picture] = scenes(1)
    for levels, size in ((None, 14), (np.zeros((4, 4)), 14), (np.zeros((1, 3)), 16)):
        [stream] = codec.encode([picture], 4, None if levels is None else [levels])
        assert header_bits(Setting("cotam", "4"), stream) == 8 * size == 8 * (len(stream) - len(unpack(stream)[1]))


def test_clean_images_have_no_rate(rates, files):
    assert not any("clean" in name for name in files)
    assert "clean" not in json.dumps(rates)


def test_streams_decode_to_the_pictures_whose_psnr_is_reported(checkout, rates, files):
    codec = Codec.from_pretrained(checkout.root / "pretrained/codec/elic-micro")
    for style, method, quality in settings():
        originals = benchmark_pictures(checkout.benchmarks / style)
        found = coded(files, style, method, quality)
        if method in (CODEC, "cotam"):
            decoded = [one.image for one in codec.decode(list(found.values()))]
            assert {unpack(stream)[0].grid for stream in found.values()} == {None if method == CODEC else (GRID, GRID)}
        else:
            decoded = [np.array(Image.open(io.BytesIO(content))) for content in found.values()]
        entry = rates["styles"][style]["methods"][method][quality]["psnr"]
        expected = [psnr(originals[name], image) for name, image in zip(found, decoded, strict=True)]
        assert entry == pytest.approx(expected, abs=1e-3)
        assert min(entry) > 10


def test_the_map_costs_what_the_files_hold(checkout, rates, files):
    codec = Codec.from_pretrained(checkout.root / "pretrained/codec/elic-micro")
    streams = coded(files, "bench", "cotam", "4").values()
    apart = 8 // GRID  # latent positions of a cell, of the eight in 128 pixels
    levels = [(one.level_map[::apart, ::apart] - 4).astype(np.int8) for one in codec.decode(list(streams))]
    assert {-1, 0, 1} >= set(np.unique(levels)) > {0}
    costs = [cost_bits(grid) for grid in levels]
    assert rates["map_bits"]["cells"] == GRID**2
    assert rates["map_bits"]["mean"] == pytest.approx(np.mean(costs))
    assert rates["map_bits"]["max"] == pytest.approx(max(costs))
    assert 0 < rates["map_bits"]["share"] < 1


def test_maps_of_tiled_images_count_all_their_cells():
    settings = config.load()
    pictures = {str(side): scenes(1)[0].repeat(side // 128, 0).repeat(side // 128, 1) for side in (128, 256)}
    guidance = settings.guidance.model_dump()
    maps = map_costs(load_guide(**guidance), pictures)
    assert [one.cells for one in maps] == [GRID**2, 4 * GRID**2]
    assert maps[0].bits > 0
    assert map_costs(load_guide(**guidance | {"levels": 1}), pictures) == [(0.0, 0)] * 2


def test_photographs_are_measured_with_and_without_guidance(rates):
    found = rates["photographs"]
    assert len(found["images"]) == 8
    for kind in ("plain", "guided"):
        assert [point["quality"] for point in found[kind]] == [0, 4]
        for point in found[kind]:
            assert 0 < point["bpp_without_header"] < point["bpp"]
            assert 5 < point["psnr"] < 60
    assert found["plain"] != found["guided"]


def test_another_run_in_more_processes_writes_the_same_bytes(checkout, tmp_path):
    instance = {"codec": CODEC}
    seen = declared(find("rate"), config.load(checkout.root / "params.yaml"), instance) | {"threads": 2}
    step_rate.run(StepInputs(Params(seen), tmp_path, tmp_path, paths=checkout, **instance))
    for name in ("streams.zip", "rates.json"):
        assert (tmp_path / name).read_bytes() == (checkout.rate(CODEC) / name).read_bytes()
