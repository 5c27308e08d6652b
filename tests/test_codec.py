"""The codec as others use it: what is decoded is what was encoded, to the bit, whatever else is coded beside it."""

import numpy as np
import pytest
import torch
from PIL import Image

from components.codec import Codec, CodecConfig
from components.codec.container import Header, header_bytes, pack, unpack
from components.codec.elic import Elic
from components.codec.folder import load_codec, model_id, save_codec
from components.errors import CotamError
from components.paths import ROOT
from components.scenes import render, sample_scene
from tests import spec_decoder

SHIPPED = ROOT / "pretrained/codec/elic-micro"
SIZES = [(1, 1), (17, 33), (16, 16), (48, 80), (17, 33), (70, 20)]  # height, width


def tiny_codec_folder(folder, seed=0, **sizes):
    """A random codec that codes something: gains apart, weights as their layers initialise them."""
    config = CodecConfig(
        widths=(8, 8, 12), latent_channels=24, groups=(4, 8, 12), blocks=1, hyper_channels=8, side_channels=12,
        context_channels=8, hidden_channels=16, **sizes,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Elic(config)
        with torch.no_grad():
            for layer in model.entropy.aggregation:  # otherwise they say nothing yet
                torch.nn.init.normal_(layer[-1].weight, std=0.2)
            torch.nn.init.normal_(model.entropy.hyper_mean_QC)
            torch.nn.init.normal_(model.entropy.quality_side_QS)
            torch.nn.init.normal_(model.entropy.log_spread_C, mean=-1.0, std=0.3)
    save_codec(folder, model)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_codec_folder(tmp_path_factory.mktemp("codec"))


@pytest.fixture(scope="module")
def fine_folder(tmp_path_factory):
    return tiny_codec_folder(tmp_path_factory.mktemp("fine"), kernel=5, context_kernel=5, fine_entropy=True)


@pytest.fixture(scope="module")
def fine_codec(fine_folder):
    return Codec.from_pretrained(fine_folder)


@pytest.fixture(scope="module")
def codec(folder):
    return Codec.from_pretrained(folder)


@pytest.fixture(scope="module")
def shipped():
    return Codec.from_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def scenes():
    return [render(sample_scene(seed, "validation", "bench")) for seed in range(4)]


def pictures(sizes=SIZES, seed=0):
    """Smooth noise of these sizes."""
    rng = np.random.default_rng(seed)
    small = [Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in sizes]
    return [np.asarray(image.resize(size[::-1], Image.BICUBIC)) for image, size in zip(small, sizes, strict=True)]


def maps(count, seed=1):
    """Maps of many shapes, and none."""
    rng = np.random.default_rng(seed)
    shapes = [(4, 4), None, (1, 1), (3, 5), (8, 8), (2, 1)]
    chosen = [shapes[i % len(shapes)] for i in range(count)]
    return [None if shape is None else rng.integers(-1, 2, shape).astype(np.int8) for shape in chosen]


def assert_same(a, b):
    assert (a.image == b.image).all()
    assert a.image.shape == b.image.shape
    assert (a.latent == b.latent).all()
    assert (a.level_map == b.level_map).all()
    assert a.quality == b.quality


@pytest.mark.parametrize("guided", [False, True])
def test_decoding_gives_what_the_encoder_reconstructs(codec, guided):
    images = pictures()
    guidance = maps(len(images)) if guided else None
    qualities = [0, 9, 4, 7, 2, 5]
    streams = codec.encode(images, qualities, guidance)
    decoded = codec.decode(streams)
    for image, made, expected in zip(images, decoded, codec.reconstruct(images, qualities, guidance), strict=True):
        assert_same(made, expected)
        assert made.image.shape == image.shape
        assert made.image.dtype == np.uint8
        assert made.latent.shape[1:] == made.level_map.shape == codec.latent_size(*image.shape[:2])


def test_streams_and_pixels_do_not_depend_on_what_else_is_coded(codec, shipped, scenes):
    for coder, images in ((codec, pictures()), (shipped, scenes)):
        guidance = maps(len(images))
        together = coder.encode(images, 5, guidance)
        alone = [coder.encode([image], 5, [grid])[0] for image, grid in zip(images, guidance, strict=True)]
        assert together == alone
        for made, single in zip(coder.decode(together), alone, strict=True):
            assert_same(made, coder.decode([single])[0])


def test_any_number_of_images_go_through_iterators(codec):
    images = pictures()
    streams = codec.encode(images, 5)
    asked = []
    lazy = codec.encode_all((asked.append(image.shape) or image for image in images), 5, portion=4)
    assert asked == []
    assert next(lazy) == streams[0]
    assert len(asked) == 4
    assert list(lazy) == streams[1:]
    for made, expected in zip(codec.decode_all(iter(streams), portion=4), codec.decode(streams), strict=True):
        assert_same(made, expected)


def test_a_pil_image_and_its_array_are_the_same_to_the_codec(codec):
    [image] = pictures([(20, 30)])
    grey = Image.fromarray(image).convert("L")
    assert codec.encode([Image.fromarray(image)], 3) == codec.encode([image], 3)
    assert codec.encode([grey], 3) == codec.encode([np.asarray(grey.convert("RGB"))], 3)


def test_the_trained_codec_reconstructs_scenes(shipped, scenes):
    decoded = shipped.decode(shipped.encode(scenes, 9))
    for scene, made in zip(scenes, decoded, strict=True):
        error = np.mean((scene.astype(float) - made.image) ** 2)
        assert 10 * np.log10(255**2 / error) > 32


def test_files_grow_and_errors_shrink_with_quality(shipped, scenes):
    sizes, errors = [], []
    for quality in range(10):
        streams = shipped.encode(scenes, quality)
        decoded = shipped.decode(streams)
        sizes.append(sum(map(len, streams)))
        pairs = zip(scenes, decoded, strict=True)
        errors.append(np.mean([np.mean((scene.astype(float) - made.image) ** 2) for scene, made in pairs]))
    assert sizes == sorted(set(sizes))
    assert errors == sorted(set(errors), reverse=True)


def test_files_are_as_long_as_the_likelihoods_say(shipped, scenes):
    x = torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).float() / 255
    for quality in (1, 5, 9):
        with torch.no_grad():
            out = shipped.model(x, torch.full((len(scenes), 8, 8), quality))
        estimated = sum(float(-part.log2().sum()) for part in out["likelihoods"].values())
        # Beside its symbols a stream holds the coder's first state, 32 bits.
        written = sum(8 * (len(stream) - header_bytes(stream)) for stream in shipped.encode(scenes, quality))
        assert written == pytest.approx(estimated + 32 * len(scenes), rel=0.03)


def test_bits_go_where_the_map_says(shipped, scenes):
    """Raising one half spends more bits on it: measured by the likelihoods at every place."""

    def bits(levels):
        qualities = np.clip(4 + np.repeat(levels, 8, 0).repeat(8 // levels.shape[1], 1), 0, 9)
        with torch.no_grad():
            out = shipped.model(x, torch.from_numpy(qualities)[None].expand(len(scenes), -1, -1).long())
        return -out["likelihoods"]["y"].log2().sum((0, 1)).numpy()

    x = torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).float() / 255
    flat, left, right = (bits(np.array([row])) for row in ([0, 0], [1, 0], [0, 1]))
    assert left[:, :4].sum() > 1.05 * flat[:, :4].sum()
    assert right[:, 4:].sum() > 1.05 * flat[:, 4:].sum()
    # The other half hardly changes: its neighbours only predict it a little better.
    assert abs(left[:, 4:].sum() / flat[:, 4:].sum() - 1) < 0.05
    sizes = {
        name: sum(map(len, shipped.encode(scenes, 4, [np.array([row], np.int8)] * len(scenes))))
        for name, row in {"flat": [0, 0], "left": [1, 0], "both": [1, 1], "less": [-1, 0]}.items()
    }
    assert sizes["less"] < sizes["flat"] < sizes["left"] < sizes["both"]


def test_a_raised_half_is_nearer_to_the_original(shipped, scenes):
    up = np.array([[1, -1]], np.int8)
    errors = []
    for grid in (up, -up):
        decoded = shipped.reconstruct(scenes, 4, [grid] * len(scenes))
        pairs = zip(decoded, scenes, strict=True)
        errors.append(np.mean([np.square(made.image.astype(float) - scene) for made, scene in pairs], (0, 1, 3)))
    assert errors[0][:64].mean() < errors[1][:64].mean()
    assert errors[0][64:].mean() > errors[1][64:].mean()


def test_a_map_of_zeros_decodes_to_the_plain_image(codec):
    images = pictures([(48, 80)])
    plain, flat = codec.encode(images, 4), codec.encode(images, 4, [np.zeros((3, 3), np.int8)])
    assert plain != flat
    assert_same(codec.decode(plain)[0], codec.decode(flat)[0])


def test_another_decoder_written_from_the_document_agrees(codec, folder, fine_codec, fine_folder, shipped, scenes):
    """Header, map, entropy coder, networks: docs/bitstream.md is enough to read a stream."""
    cases = [
        (codec, folder, pictures([(17, 83)])[0], 3, np.array([[1, 0, -1], [0, 1, 1]], np.int8)),
        (codec, folder, pictures([(1, 1)])[0], 9, None),
        (codec, folder, pictures([(48, 64)])[0], 4, np.array([[3, 0, -1], [2, -2, 1]], np.int8)),
        (codec, folder, pictures([(40, 40)])[0], 4, np.array([[0, -2], [1, 0]], np.int8)),
        (fine_codec, fine_folder, pictures([(33, 50)])[0], 6, np.array([[1, 0, -1], [0, 1, 1]], np.int8)),
        (shipped, SHIPPED, scenes[0][:52, :72], 2, np.array([[1, 0], [-1, 1]], np.int8)),
    ]
    for coder, where, image, quality, grid in cases:
        [stream] = coder.encode([image], quality, [grid])
        y, pixels = spec_decoder.decode(stream, where)
        [decoded] = coder.decode([stream])
        latent = y * coder.model.latent_inverse.at(torch.from_numpy(decoded.level_map)[None])[0]
        assert (latent.detach().numpy() == decoded.latent).all()
        assert np.abs(pixels.astype(int) - decoded.image).max() <= 1  # pixels are float32


def test_two_threads_read_what_one_wrote(codec, shipped, scenes):
    threads = torch.get_num_threads()
    try:
        for coder, images in ((codec, pictures([(96, 128), (17, 33)])), (shipped, scenes)):
            torch.set_num_threads(1)
            streams = coder.encode(images, 6, maps(len(images)))
            expected = coder.decode(streams)
            torch.set_num_threads(2)
            found = coder.decode(streams)
            assert all((made.latent == one.latent).all() for made, one in zip(found, expected, strict=True))
    finally:
        torch.set_num_threads(threads)


def test_damaged_streams_are_refused_or_decode_to_the_right_latent(codec):
    images = pictures([(40, 56), (17, 33)], seed=3)
    streams = codec.encode(images, 6, [maps(1)[0], None])
    expected = codec.decode(streams)
    rng = np.random.default_rng(4)
    refused = 0
    for n in range(300):
        stream, right = streams[n % 2], expected[n % 2]
        damaged = bytearray(stream)
        if n % 3 == 0:
            del damaged[int(rng.integers(len(damaged))) :]
        elif n % 3 == 1:
            damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
        else:
            start = int(rng.integers(len(damaged)))
            damaged[start : start + 9] = rng.bytes(int(rng.integers(1, 18)))
        try:
            [decoded] = codec.decode([bytes(damaged)], maximum_pixels=1 << 16)
        except CotamError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert_same(decoded, right)
    assert refused > 290


def test_mistakes_are_one_sentence(codec, folder, tmp_path):
    images = pictures([(20, 20)])
    for quality in (-1, 10):
        with pytest.raises(CotamError, match=f"There is no quality {quality}; choose 0"):
            codec.encode(images, quality)
    with pytest.raises(CotamError, match="empty"):
        codec.encode([np.zeros((0, 5, 3), np.uint8)], 3)
    with pytest.raises(CotamError, match="65535"):
        codec.encode([np.zeros((1, 70000, 3), np.uint8)], 3)
    for grid in (np.full((2, 2), 4), np.zeros((256, 1)), np.zeros((0, 1)), np.zeros(4)):
        with pytest.raises(CotamError, match="level map"):
            codec.encode(images, 3, [grid])

    [stream] = codec.encode(images, 3)
    other = Codec.from_pretrained(tiny_codec_folder(tmp_path / "other", seed=1))
    with pytest.raises(CotamError, match=f"made by codec {codec.model_id}, this one is {other.model_id}"):
        other.decode([stream])
    header, payload = unpack(stream)
    huge = Header(header.model_id, 9000, 9000, 3, None)
    with pytest.raises(CotamError, match="too short for the size"):  # before anything of that size is allocated
        codec.decode([pack(huge, payload, 0)])
    with pytest.raises(CotamError, match="more than 399 pixels"):
        codec.decode([stream], maximum_pixels=399)


@pytest.mark.parametrize(("shape", "kind"), [((16, 16, 3), float), ((16, 16), np.uint8), ((16, 16, 4), np.uint8)])
def test_arrays_that_are_no_rgb_images_are_refused(codec, shape, kind):
    array = np.zeros(shape, kind)
    with pytest.raises(CotamError, match=r"An image is uint8 \(H, W, 3\), not"):
        codec.encode([array], 4)


def test_a_codec_folder_reads_back_and_names_what_is_wrong(folder, tmp_path):
    model = load_codec(folder)
    save_codec(tmp_path / "again", model)
    assert model_id(tmp_path / "again") == model_id(folder)  # float16 survives

    save_codec(tmp_path / "wrong", model)
    config = (tmp_path / "wrong/config.json").read_text()
    (tmp_path / "wrong/config.json").write_text(config.replace('"blocks": 1', '"blocks": 2'))
    with pytest.raises(CotamError, match="do not belong together"):
        load_codec(tmp_path / "wrong")
    (tmp_path / "wrong/config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(CotamError, match="does not hold a codec"):
        load_codec(tmp_path / "wrong")
    with pytest.raises(CotamError):
        Codec.from_pretrained(tmp_path / "nowhere")


def test_training_and_the_wire_predict_the_same(shipped, scenes):
    """`forward` (float32, straight-through) and the wire (integers, rounded means) decode nearly the same latent."""
    x = torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        trained = shipped.model(x, torch.full((len(scenes), 8, 8), 6))["y_hat"].numpy()
    coded = np.stack([decoded.latent for decoded in shipped.reconstruct(scenes, 6)])
    assert np.corrcoef(trained.ravel(), coded.ravel())[0, 1] > 0.999
