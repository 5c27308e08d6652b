"""In what numbers an MLLM is held: as the settings or `--dtype` say, from the steps and commands to the weights."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from components import config
from components.cli import main
from components.evaluation.evaluate import Models
from components.evaluation.step_task import _asker
from components.mllm import load_mllm
from components.paths import PRETRAINED
from components.step_inputs import Params, StepInputs
from tests.models import tiny_llava_folder


class Held(Exception):
    """Raised in place of loading, with the dtype that was asked for."""


@pytest.fixture
def asked(monkeypatch):
    def load(folder, batch_size=64, *, dtype=None, device_map=None):
        raise Held(dtype)

    monkeypatch.setattr("components.mllm.load_mllm", load)


def inputs(tmp_path, **entry):
    models = {"codec": {"elic": {"weights": str(PRETRAINED / "codec/elic-micro")}}}
    models["mllm"] = {"one": {"weights": str(PRETRAINED / "mllm/micro-llava"), **entry}}
    return StepInputs(params=Params(models), work=tmp_path, out=tmp_path, codec="elic", mllm="one")


@pytest.mark.parametrize("entry", [{}, {"dtype": "bfloat16"}])
def test_steps_ask_for_what_the_settings_say(asked, tmp_path, entry):
    given = inputs(tmp_path, **entry)
    models = Models(given.codec_weights, given.mllm_weights, None, tmp_path, tmp_path, given.mllm_dtype)
    for load in (models.receiver, lambda: _asker(given, {})):
        with pytest.raises(Held) as found:
            load()
        assert found.value.args == (entry.get("dtype"),)


def test_the_settings_have_it_where_somebody_sets_it():
    [name] = config.load().mllms
    entry = f"{{{name}: {{weights: a, dtype: bfloat16}}}}"
    assert config.load().mllm[name].dtype is None
    assert config.load(overrides={"mllm": entry}).mllm[name].dtype == "bfloat16"


def test_ask_holds_it_as_told(tmp_path, capsys):
    folder, question = tiny_llava_folder(tmp_path / "llava"), "How many circles are there?"
    pixels = np.random.default_rng(5).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    asked = ["ask", str(tmp_path / "picture.png"), question, "--mllm", str(folder)]
    assert main([*asked, "--dtype", "bfloat16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    mllm = load_mllm(folder, dtype=torch.bfloat16)
    assert told["dtype"] == "bfloat16"
    assert told["answers"][0]["answer"] == mllm.answer(mllm.views([pixels]), [question], 128)[0]
    with pytest.raises(SystemExit):
        main([*asked, "--dtype", "int8"])
    assert "invalid choice: 'int8'" in capsys.readouterr().err
