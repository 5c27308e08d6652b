"""DCAE: the published network and its checkpoints, the variable-rate micro codec, its streams."""

import json
import math

import numpy as np
import pytest
import torch

from components import config
from components.codec import Codec
from components.codec.architectures import build, read_config
from components.codec.config import FULL_DCAE, LAMBDAS, CodecConfig, DcaeConfig
from components.codec.dcae import Dcae
from components.codec.dcae_published import our_name
from components.codec.folder import load_codec, model_id, save_codec
from components.codec.start import start_from_principal_components
from components.codec.swin import WindowAttention
from components.errors import CotamError
from components.scenes import render, sample_scene
from components.steps import find, instances, run_step
from tests.dcae_reference import SMALL, Reference, Sizes, random_weights, shapes
from tests.small_checkout import TINY_DCAE, write_checkout, write_small_benchmarks


@pytest.fixture(scope="module")
def pictures():
    return [np.array(render(sample_scene(n, "validation", "bench"))) for n in range(2)]


@pytest.fixture(scope="module")
def tiny(pictures):
    """A micro DCAE, untrained but for its start, and shaken so that nothing in it is silent."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build(TINY_DCAE)
        start_from_principal_components(model, torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def codec(tiny):
    return Codec(tiny, "0123abcd")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A checkpoint as the release's training writes it, and its weights."""
    weights = random_weights(SMALL, seed=1)
    path = tmp_path_factory.mktemp("release") / "dcae.pth.tar"
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([parameter])
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [46])
    torch.save(
        {
            "epoch": 49,
            "state_dict": {f"module.{name}": value for name, value in weights.items()},
            "loss": torch.tensor(0.5),
            "optimizer": optimizer.state_dict(),
            "lr_scheduler": schedule.state_dict(),
        },
        path,
    )
    return path, weights


def test_the_full_width_network_is_the_published_one():
    published = shapes(Sizes())
    assert sum(map(math.prod, published.values())) == 119_388_639
    with torch.device("meta"):
        model = Dcae(FULL_DCAE)
    ours = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert {our_name(name, 3): shape for name, shape in published.items()}.items() <= ours.items()
    gains = {name for name in ours if name.endswith(("log_QC", "_QC", "_QS", "log_spread_C"))}
    named = {our_name(name, 3) for name in published}
    assert {name for name in ours.keys() - named - gains if not name.startswith("entropy.density.")} == set()


def test_a_release_checkpoint_computes_what_the_release_does(release):
    path, weights = release
    model = Codec.from_pretrained(path).model
    x_B3HW = torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    quality = torch.zeros(1, 4, 8, dtype=torch.long)
    # In float64 no value lies so close to a rounding edge that two orders of a sum round it differently.
    expected = Reference({name: value.double() for name, value in weights.items()}, SMALL)(x_B3HW.double())
    exact = load_double(model)
    with torch.no_grad():
        out = exact(x_B3HW.double(), quality)
        y_BCHW = model.analyse(x_B3HW, quality)
        x_hat_B3HW = model.synthesize(expected["y_hat"].float(), quality)
    assert expected["y"].std() > 1, "the latent would tell nothing"
    assert (out["y_hat"] - expected["y_hat"]).abs().max() < 1e-4
    assert (out["x_hat"] - expected["x_hat"]).abs().max() < 1e-4
    for part, name in (("y", "py"), ("z", "pz")):
        bits, wanted = (-p.double().log2().sum() for p in (out["likelihoods"][part], expected[name]))
        assert abs(bits / wanted - 1) < 1e-3
    # And the transforms in float32.
    assert (y_BCHW - expected["y"]).abs().max() < 1e-4 * expected["y"].std()
    assert (x_hat_B3HW - expected["x_hat"]).abs().max() < 1e-4


def load_double(model: Dcae) -> Dcae:
    exact = Dcae(model.config).double().eval()
    exact.load_state_dict(model.state_dict(), strict=False)
    return exact


def test_a_release_codes_images_as_a_codec_of_one_rate(release, pictures):
    codec = Codec.from_pretrained(release[0])
    assert codec.config.qualities == 1
    streams = codec.encode(pictures, quality=0)
    for found, wanted in zip(codec.decode(streams), codec.reconstruct(pictures, quality=0), strict=True):
        assert (found.latent == wanted.latent).all() and (found.image == wanted.image).all()
    with pytest.raises(CotamError, match="no quality 1"):
        codec.encode(pictures, quality=1)


def test_a_release_that_lacks_a_tensor_is_refused(release, tmp_path):
    weights = dict(release[1])
    del weights["g_s.3.layers.0.mlp.fc1.weight"]
    torch.save(weights, tmp_path / "cut.pth")
    with pytest.raises(CotamError, match="does not fit"):
        Codec.from_pretrained(tmp_path / "cut.pth")
    del weights["h_a.2.weight"]
    torch.save(weights, tmp_path / "cut.pth")
    with pytest.raises(CotamError, match="copy it again"):
        Codec.from_pretrained(tmp_path / "cut.pth")


def test_the_micro_codec_fits_in_three_megabytes():
    with torch.device("meta"):
        model = Dcae(DcaeConfig())
    assert 2 * sum(p.numel() for p in model.parameters()) < 3e6


def test_architecture_tells_whose_sizes_they_are():
    assert read_config(DcaeConfig().model_dump(mode="json")) == DcaeConfig()
    assert read_config(CodecConfig().model_dump(mode="json")) == CodecConfig()
    with pytest.raises(ValueError, match="no architecture"):
        read_config({"architecture": "vvc"})
    with pytest.raises(ValueError, match="add up"):
        DcaeConfig(groups=(16, 16))


def test_it_starts_as_a_block_transform(pictures):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(TINY_DCAE.model_copy(update={"widths": (12, 24, 24), "latent_channels": 40, "groups": (8, 32)}))
    x_B3HW = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    start_from_principal_components(model, x_B3HW)
    with torch.no_grad():
        quality = torch.zeros(2, 8, 8, dtype=torch.long)
        x_hat = model.synthesize(model.ungain(model.analyse(x_B3HW, quality), quality), quality)
    assert (x_hat - x_B3HW).square().mean() < 0.2 * (x_B3HW - x_B3HW.mean()).square().mean()


@pytest.mark.parametrize("size", [(128, 128), (40, 72), (1, 1), (17, 130)])
@pytest.mark.parametrize("quality", [0, 9])
def test_streams_decode_to_what_was_encoded(codec, pictures, size, quality):
    cropped = [np.resize(picture, (*size, 3)) for picture in pictures]
    levels = [None, np.array([[-1, 1], [0, 1]], np.int8)]
    streams = codec.encode(cropped, quality, levels)
    for found, wanted in zip(codec.decode(streams), codec.reconstruct(cropped, quality, levels), strict=True):
        assert found.image.shape[:2] == size
        assert (found.latent == wanted.latent).all() and (found.image == wanted.image).all()


def test_a_stream_does_not_depend_on_its_batch(codec, pictures):
    together = codec.encode(pictures * 2, 5)
    assert together == [stream for picture in pictures * 2 for stream in codec.encode([picture], 5)]


def test_a_damaged_stream_is_refused(codec, pictures):
    stream = bytearray(codec.encode(pictures[:1], 3)[0])
    stream[len(stream) // 2] ^= 16
    with pytest.raises(CotamError, match="damaged"):
        codec.decode([bytes(stream)])


def test_streams_are_as_long_as_the_likelihoods_say(codec, tiny, pictures):
    x_B3HW = torch.from_numpy(pictures[0].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        likelihoods = tiny(x_B3HW, torch.full((1, 8, 8), 2))["likelihoods"]
    bits = -sum(float(p.log2().sum()) for p in likelihoods.values())
    length = 8 * len(codec.encode(pictures[:1], 2)[0])
    assert abs(length - bits) < 0.03 * bits + 400


def test_a_folder_holds_a_dcae(tiny, pictures, tmp_path):
    save_codec(tmp_path / "codec", tiny)
    again = load_codec(tmp_path / "codec")
    assert isinstance(again, Dcae) and again.config == TINY_DCAE
    codec = Codec.from_pretrained(tmp_path / "codec")
    assert codec.model_id == model_id(tmp_path / "codec")
    assert codec.decode(codec.encode(pictures[:1], 4))[0].image.shape == pictures[0].shape


def test_the_pipeline_codes_with_both_codecs_by_one_changed_parameter(tmp_path):
    paths = write_checkout(tmp_path, {"codecs": "[elic, dcae]", "evaluation.qualities": "[0, 4]"})
    write_small_benchmarks(paths, images=2)
    every = list(instances(find("rate"), config.load(tmp_path / "params.yaml")))
    assert every == [{"codec": "elic"}, {"codec": "dcae"}]
    run_step("rate", "dcae", paths=paths)
    rates = json.loads((paths.rate("dcae") / "rates.json").read_text())
    for style in rates["styles"].values():
        assert {"dcae", "cotam"} <= set(style["methods"])


@pytest.mark.parametrize("shifted", [False, True])
def test_windows_do_not_see_each_other(shifted):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention = WindowAttention(8, 4, 4, shifted).eval()
    x_BHWC = torch.randn(1, 12, 12, 8, generator=torch.Generator().manual_seed(1))
    changed = x_BHWC.clone()
    changed[0, 0, 0] += 1
    with torch.no_grad():
        moved = (attention(x_BHWC) - attention(changed))[0].abs().amax(-1) > 0
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[: 2 if shifted else 4, : 2 if shifted else 4] = True
    assert (moved == expected).all()


def test_a_training_step_teaches_every_part(pictures):
    from pipelines.pretrain.train_codec import rate_distortion

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(TINY_DCAE)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
        x_B3HW = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        maps = torch.arange(len(LAMBDAS)).repeat(2, 64)[:, :64].reshape(2, 8, 8)
        rate_distortion(model, x_B3HW, maps).loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
