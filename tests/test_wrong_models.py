"""Folders that are not what they are named as: one sentence, when they are loaded, that says what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from components.adapter import AdapterConfig, LatentAdapter
from components.cli import main
from components.errors import CotamError
from components.mllm import load_mllm
from components.paths import PRETRAINED
from components.vision import load_tower
from components.weights import LONGEST_REASON
from tests.pictures import noise

FAMILIES = ("micro-llava", "micro-onevision", "micro-internvl")


@pytest.fixture(params=FAMILIES)
def folder(request, tmp_path) -> Path:
    return shutil.copytree(PRETRAINED / "mllm" / request.param, tmp_path / request.param)


def change(file: Path, edit) -> None:
    told = json.loads(file.read_text())
    edit(told)
    file.write_text(json.dumps(told))


def refused(call, *arguments, match: str) -> None:
    with pytest.raises(CotamError, match=match) as found:
        call(*arguments)
    said = str(found.value)
    assert "\n" not in said and said.endswith(".")
    assert len(said) < 300 + len(str(arguments[0]))


@pytest.mark.parametrize("load", [load_mllm, load_tower])
def test_a_tower_that_nobody_knows(folder, load):
    change(folder / "config.json", lambda told: told["vision_config"].update(model_type="davit"))
    refused(load, folder, match="sees through a 'davit'; a tower must be one of clip_vision_model, .*: name another")


@pytest.mark.parametrize("load", [load_mllm, load_tower])
def test_a_tower_that_only_transformers_knows(folder, load):
    change(folder / "config.json", lambda told: told["vision_config"].update(model_type="vit"))
    refused(load, folder, match="sees through a 'vit'; a tower must be one of clip_vision_model, .*: name another")


@pytest.mark.parametrize("load", [load_mllm, load_tower])
def test_a_language_model_that_nobody_knows(folder, load):
    change(folder / "config.json", lambda told: told["text_config"].update(model_type="gpt99"))
    refused(load, folder, match=r"speaks through a 'gpt99', which transformers [\d.]+ does not know; install")


def test_a_language_model_that_does_not_speak(folder):
    change(folder / "config.json", lambda told: told.update(text_config={"model_type": "clip_vision_model"}))
    refused(load_mllm, folder, match="fetch|another MLLM")


@pytest.mark.parametrize("load", [load_mllm, load_tower])
def test_a_value_that_is_none(folder, load):
    change(folder / "config.json", lambda told: told["vision_config"].update(hidden_size="large"))
    refused(load, folder, match=r"is not as transformers [\d.]+ reads it \(.*hidden_size.*\); fetch it again")


def test_a_tower_of_another_size(folder):
    change(folder / "config.json", lambda told: told["vision_config"].update(hidden_size=64))
    refused(load_mllm, folder, match="have other sizes than its config.json says; fetch both again")
    refused(load_tower, folder, match="missing or damaged")


def test_an_internvl_without_its_tokenizers_configuration(tmp_path):
    folder = shutil.copytree(PRETRAINED / "mllm/micro-internvl", tmp_path / "mllm")
    (folder / "tokenizer_config.json").unlink()
    refused(load_mllm, folder, match="are incomplete .*; fetch tokenizer_config.json")


def test_weights_that_only_a_pickle_holds(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for load in (load_mllm, load_tower):
        refused(load, folder, match=r"only pickled weights \(pytorch_model\.bin\), .*; convert them to safetensors")
    (folder / "pytorch_model.bin").unlink()
    for load in (load_mllm, load_tower):
        refused(load, folder, match="has no weights: its safetensors files are missing; fetch them again")


def test_a_processor_that_is_not_there(folder):
    (folder / "processor_config.json").unlink()
    refused(load_mllm, folder, match="has no processor: .*; fetch them again")


def test_an_mllm_that_cannot_be_asked(folder):
    (folder / "chat_template.jinja").unlink()
    refused(load_mllm, folder, match=r"has no chat template, .*; add its chat_template\.jinja")


@pytest.mark.parametrize("where", ["everywhere", "cuda:97", {"": 97}, {"vision_tower": "cpu", "": "gpu"}])
def test_a_device_that_is_not_here(where):
    told = "device_map names .*, which is no device of this machine .*; choose cpu, a GPU that is here"
    with pytest.raises(CotamError, match=told):
        load_mllm("mllm/micro-llava", device_map=where)


@pytest.mark.parametrize("dtype", ["float99", "int8", "bool", "float8_e4m3fn", torch.int32, 16])
def test_a_dtype_that_is_none_for_weights(dtype):
    with pytest.raises(CotamError, match=r"There is no dtype .* for an MLLM; choose auto, bfloat16, float16 or"):
        load_mllm("mllm/micro-llava", dtype=dtype)


def test_an_image_token_that_the_tokenizer_has_elsewhere(folder):
    told = json.loads((folder / "config.json").read_text())
    key = next(key for key in told if key.startswith("image_token"))
    change(folder / "config.json", lambda told: told.update({key: told[key] - 1}))
    refused(load_mllm, folder, match=f"has token {told[key] - 1} for images and the tokenizer .* {told[key]}; fetch")


def test_a_video_token_that_the_tokenizer_has_elsewhere(tmp_path):
    folder = shutil.copytree(PRETRAINED / "mllm/micro-onevision", tmp_path / "mllm")
    told = json.loads((folder / "config.json").read_text())
    key = next(key for key in told if key.startswith("video_token"))
    change(folder / "config.json", lambda told: told.update({key: 0}))
    refused(load_mllm, folder, match="has token 0 for videos and the tokenizer .*; fetch")


@pytest.mark.parametrize("other", ["codec/elic-micro", "clip/micro", "mllm/micro-llava"])
def test_what_is_no_adapter(other):
    refused(LatentAdapter.load, PRETRAINED / other, match=r"not hold an adapter .* \(\w+: .*\); give the folder of an")


def test_an_adapter_whose_files_do_not_belong_together(tmp_path):
    LatentAdapter(AdapterConfig(latent_channels=4, feature_dim=8, grid=(2, 2), width=16)).save(tmp_path / "adapter")
    change(tmp_path / "adapter/config.json", lambda told: told.update(width=32))
    refused(LatentAdapter.load, tmp_path / "adapter", match="LatentAdapter: size mismatch for .* \\.\\.\\.")
    change(tmp_path / "adapter/config.json", lambda told: told.update(width=30))
    refused(LatentAdapter.load, tmp_path / "adapter", match="width 30 cannot be shared by 4 heads")
    (tmp_path / "adapter/config.json").write_text("[]")
    refused(LatentAdapter.load, tmp_path / "adapter", match="does not hold an adapter")
    assert LONGEST_REASON < 200


def test_asking_with_what_is_no_adapter(tmp_path, capsys):
    from components.codec import Codec

    codec = PRETRAINED / "codec/elic-micro"
    stream = tmp_path / "picture.cotam"
    stream.write_bytes(Codec.from_pretrained(codec).encode([noise(1)], 3)[0])
    asked = ["ask", str(stream), "what is it ?", "--mllm", str(PRETRAINED / "mllm/micro-llava"), "--codec", str(codec)]
    assert main([*asked, "--adapter", str(codec)]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "does not hold an adapter" in said[0]
