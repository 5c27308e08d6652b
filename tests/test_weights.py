"""Weights on disk: what was saved is what is loaded, and every way to get it wrong is one sentence."""

import pytest
import torch

from components.errors import CotamError
from components.weights import load_safetensors, resolve, save_safetensors


def test_what_was_saved_is_loaded(tmp_path):
    shared = torch.randn(3, 4)
    learnt = torch.ones(1).requires_grad_()
    tensors = {"a": shared, "transposed": shared.T, "steps": torch.tensor([1, 2**40]), "learnt": learnt}
    save_safetensors(tmp_path / "model", tensors, {"width": 3})
    loaded, config = load_safetensors(tmp_path / "model")
    assert config == {"width": 3}
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_half_the_bytes_and_float32_again(tmp_path):
    tensors = {"a": torch.randn(1000), "steps": torch.tensor([2**40])}
    save_safetensors(tmp_path / "full", tensors, {})
    save_safetensors(tmp_path / "half", tensors, {}, half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[0] - sizes[1] == 2000
    loaded, _ = load_safetensors(tmp_path / "half")
    assert loaded["a"].dtype == torch.float32
    assert torch.equal(loaded["a"], tensors["a"].half().float())
    assert torch.equal(loaded["steps"], tensors["steps"])


def test_saving_again_replaces_the_folder(tmp_path):
    save_safetensors(tmp_path / "model", {"a": torch.zeros(1)}, {})
    (tmp_path / "model/left_over").touch()
    save_safetensors(tmp_path / "model", {"a": torch.ones(1)}, {})
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_missing_and_damaged_files_are_said(tmp_path):
    folder = tmp_path / "model"
    save_safetensors(folder, {"a": torch.zeros(100)}, {})
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1])
    with pytest.raises(CotamError, match="is damaged"):
        load_safetensors(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CotamError, match="does not exist; give a folder"):
        load_safetensors(folder)
    with pytest.raises(CotamError, match="does not exist"):
        load_safetensors(tmp_path / "nothing")


def test_a_model_is_found_by_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "file").touch()
    assert resolve(tmp_path / "here") == tmp_path / "here"
    monkeypatch.chdir(tmp_path)
    assert resolve("here").resolve() == tmp_path / "here"
    with pytest.raises(CotamError, match="is a file; give the folder"):
        resolve("file")
    for name in ("nothing", "./no/such/folder", "pretrained/nothing", ""):
        with pytest.raises(CotamError, match="There is no model at"):
            resolve(name)


def test_a_hub_model_without_safetensors(monkeypatch, tmp_path):
    """The fetching process is another one: here it is a program that finds what the Hub would have given."""
    import components.weights as weights

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    pretended = f"import sys; assert '*.bin' in sys.argv; print({str(tmp_path)!r})"
    monkeypatch.setattr(weights, "_FETCH", pretended)
    with pytest.raises(CotamError, match=r"some-one/some-model has no safetensors on Hugging Face, .*; convert them"):
        resolve("some-one/some-model")
    (tmp_path / "model.safetensors").touch()
    assert resolve("some-one/some-model") == tmp_path


def test_what_is_not_fetched_is_a_pattern_of_the_hub(tmp_path):
    from huggingface_hub.utils import filter_repo_objects

    from components.weights import PICKLED

    names = ["config.json", "pytorch_model-00001-of-2.bin", "tf_model.h5", "model.safetensors", "tokenizer.model"]
    kept = ["config.json", "model.safetensors", "tokenizer.model"]
    assert list(filter_repo_objects(names, ignore_patterns=list(PICKLED))) == kept


def test_a_hub_name_without_network(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CotamError, match=r"some-one/some-model is neither .* \(.*refused\); connect to the network"):
        resolve("some-one/some-model")
    assert capfd.readouterr() == ("", "")
