"""Published ELIC checkpoints: our networks compute what CompressAI's do, and write streams in our container."""

import pickle

import numpy as np
import pytest
import torch
from compressai.models.sensetime import Elic2022Official
from safetensors.torch import save_file

from components.codec import Codec
from components.codec.container import header_bytes
from components.codec.elic2022 import Elic2022Config
from components.codec.exact_elic2022 import ExactElic2022
from components.codec.folder import load_codec, save_codec
from components.codec.published import load_published
from components.codec.tables import TABLES
from components.errors import CotamError
from components.scenes import render, sample_scene

N, M, GROUPS = 16, 24, [4, 8, 12]


@pytest.fixture(scope="module")
def official():
    """CompressAI's own model, random, but so that latents are not all zero and densities not all alike."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Elic2022Official(N=N, M=M, groups=GROUPS).eval()
        with torch.no_grad():
            model.g_a[13].weight *= 6
            model.g_s[1].weight /= 3
            model["hyper"].h_a[-1].weight *= 30
            density = model["hyper"].entropy_bottleneck
            for parameter in (*density.matrices, *density.biases, *density.factors):
                parameter += 0.3 * torch.randn_like(parameter)
            density._update_quantiles()
            for k, size in enumerate(GROUPS):  # scales as a trained model has them: such as suit the latent
                model["y"][f"y{k}"].entropy_parameters[-1].bias[:size] += 2
    return model


@pytest.fixture(scope="module")
def checkpoint(official, tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "elic.pth.tar"
    torch.save({"epoch": 3, "state_dict": official.state_dict(), "loss": 0.5}, path)
    return path


@pytest.fixture(scope="module")
def codec(checkpoint):
    return Codec.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def picture():
    return render(sample_scene(5, "validation", "bench"))


def as_tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def bits(likelihoods):
    return {name: float(-chances.log2().sum()) for name, chances in likelihoods.items()}


@torch.inference_mode()
def test_latents_reconstruction_and_rates_are_compressais(official, codec, picture):
    x_13HW = as_tensor(picture)
    expected, found = official(x_13HW), codec.model(x_13HW, torch.full((1, 8, 8), 4))
    y_13HW = official.g_a(x_13HW)
    assert y_13HW.round().abs().sum() > 100  # something is there to be coded
    assert torch.allclose(codec.model.analyse(x_13HW, torch.zeros(1, 8, 8, dtype=torch.int64)), y_13HW, atol=1e-4)
    assert torch.allclose(found["y_hat"], official.latent_codec(y_13HW)["y_hat"], atol=1e-4)
    assert torch.allclose(found["x_hat"], expected["x_hat"], atol=1e-4)
    for name, count in bits(expected["likelihoods"]).items():
        assert bits(found["likelihoods"])[name] == pytest.approx(count, rel=1e-3)


@torch.inference_mode()
def test_streams_say_what_the_float_model_says(codec, picture):
    pictures = [picture, picture[:65, :40], picture[3:4, 5:6]]
    streams = codec.encode(pictures, [0, 4, 9])
    for original, stream, found in zip(pictures, streams, codec.decode(streams), strict=True):
        assert found.image.shape == original.shape
        [again] = codec.reconstruct([original], found.quality)
        assert np.array_equal(found.image, again.image)
        assert codec.encode([original], found.quality) == [stream]
    expected = codec.model(as_tensor(picture), torch.zeros(1, 8, 8, dtype=torch.int64))
    estimate = sum(bits(expected["likelihoods"]).values())
    assert 8 * (len(streams[0]) - header_bytes(streams[0])) == pytest.approx(estimate, rel=0.02, abs=64)
    [first] = codec.decode(streams[:1])
    assert np.abs(first.latent - expected["y_hat"][0].numpy()).max() < 1.1  # a prediction may fall on the other side
    assert np.abs(first.latent - expected["y_hat"][0].numpy()).mean() < 0.05


def test_gains_change_the_rate_and_survive_the_folder(official, checkpoint, tmp_path, picture):
    model, _ = load_published(checkpoint)
    with torch.no_grad():
        for quality in range(10):
            model.latent_gain.log_QC[quality] = -0.3 * quality
            model.latent_inverse.log_QC[quality] = 0.3 * quality
    save_codec(tmp_path / "tuned", model)
    assert load_codec(tmp_path / "tuned").config == Elic2022Config(width=N, latent_channels=M, groups=GROUPS)
    codec = Codec.from_pretrained(tmp_path / "tuned")
    guidance = np.array([[1, 0], [-1, -1]], np.int8)
    streams = codec.encode([picture] * 4, [1, 4, 8, 4], [None, None, None, guidance])
    assert len(streams[0]) > len(streams[1]) > len(streams[2])
    assert np.array_equal(codec.decode(streams)[3].level_map, np.kron([[5, 4], [3, 3]], np.ones((4, 4), np.int64)))


def test_the_same_weights_have_one_identity_in_every_file(official, codec, tmp_path):
    save_file(official.state_dict(), tmp_path / "elic.safetensors")
    updated = Elic2022Official(N=N, M=M, groups=GROUPS)
    updated.load_state_dict(official.state_dict())
    updated.update()  # CompressAI's tables go into the state dict
    torch.save({f"module.{name}": value for name, value in updated.state_dict().items()}, tmp_path / "elic.pth")
    assert load_published(tmp_path / "elic.safetensors")[1] == load_published(tmp_path / "elic.pth")[1]
    assert codec.model_id == load_published(tmp_path / "elic.pth")[1]


def test_the_published_sizes_fit(tmp_path):
    torch.save(Elic2022Official().state_dict(), tmp_path / "elic.pth")
    model, _ = load_published(tmp_path / "elic.pth")
    assert model.config == Elic2022Config()
    with torch.inference_mode():
        assert model.analyse(torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 1, dtype=torch.int64)).shape == (1, 320, 1, 1)


def test_integers_agree_with_floats(codec):
    model, exact = codec.model, ExactElic2022(codec.model)
    assert len(exact.own_rows) == N
    with torch.random.fork_rng():
        torch.manual_seed(1)
        z, y = torch.randint(-3, 4, (1, N, 2, 3)), torch.randint(-4, 5, (1, M, 8, 12))
    map_1HW = torch.zeros(1, 8, 12, dtype=torch.int64)
    with torch.inference_mode():
        side = model.entropy.side(z.float(), 8, 12)
        exact_side = exact.side(64 * z.permute(0, 2, 3, 1), map_1HW)
        assert torch.allclose(exact_side / 1024, side.permute(0, 2, 3, 1), atol=0.05)
        units = exact.units(64 * y.permute(0, 2, 3, 1), map_1HW, slice(0, M))
        assert torch.equal(units, 1024 * y.permute(0, 2, 3, 1).int())
        before = model.entropy.before(2, side, y.float())
        exact_before = exact.before(2, exact_side, units[..., :12])
        assert torch.allclose(exact_before / 1024, before.permute(0, 2, 3, 1), atol=0.1)
        mean, scale = model.entropy.parameters_of(2, before, y[:, 12:].float() * ((torch.arange(12) % 2) == 0))
        odd = (torch.arange(8)[:, None] + torch.arange(12)[None]) % 2 == 1
        seen = units[..., 12:] * ((torch.arange(12) % 2) == 0)[:, None]
        places = odd.flatten().nonzero()[:, 0]
        means, rows = exact.parameters_of(
            2, exact_before.flatten(1, 2)[:, places], seen, map_1HW.flatten(1)[:, places], slice(12, 24)
        )
    assert torch.allclose(means / 64, mean[:, :, odd].transpose(1, 2), atol=0.1)
    assert int(rows.min()) >= 0
    assert int(rows.max()) < len(TABLES.rows)
    expected = scale[:, :, odd].transpose(1, 2).clamp(0.11, 256)
    assert torch.allclose(0.11 * (256 / 0.11) ** (rows / 63), expected, rtol=0.07, atol=0.08)


def broken(official, change):
    tensors = dict(official.state_dict())
    change(tensors)
    return tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("g_s.3.conv2.weight"), "does not fit.*g_s.3.conv2.weight"),
        (lambda t: t.update({"g_a.99.weight": torch.zeros(3)}), "does not fit.*g_a.99.weight"),
        (lambda t: t.update({"g_a.4.bias": torch.full((N,), torch.nan)}), "does not fit.*g_a.4.bias"),
        (lambda t: t.update({"g_a.4.bias": torch.zeros(N + 1)}), "does not fit.*g_a.4.bias"),
        (lambda t: t.pop("g_a.0.weight"), "no checkpoint of a codec that cotam knows"),
    ],
)
def test_what_does_not_fit_is_refused(official, tmp_path, change, message):
    torch.save(broken(official, change), tmp_path / "elic.pth")
    with pytest.raises(CotamError, match=message):
        Codec.from_pretrained(tmp_path / "elic.pth")


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("an object was unpickled",))


@pytest.mark.parametrize("name", ["elic.pth", "elic.safetensors"])
def test_objects_are_never_unpickled_and_damage_is_an_error(checkpoint, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(CotamError, match=r"more than tensors|is damaged"):
        load_published(path)
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(CotamError, match=r"more than tensors|is damaged"):
        load_published(path)
    path.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(CotamError, match="damaged"):
        load_published(path)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CotamError, match="no named tensors"):
        load_published(tmp_path / "list.pth")
