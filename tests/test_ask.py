"""`cotam ask`, as it is typed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from components.adapter import AdapterConfig, LatentAdapter
from components.cli import main
from components.codec import Codec, CodecConfig
from components.codec.elic import Elic
from components.codec.folder import save_codec
from components.mllm import load_mllm
from tests.models import tiny_clip_folder, tiny_llava_folder

QUESTIONS = ["How many circles are there?", "What colour is the square?"]


@pytest.fixture(scope="module")
def mllm(tmp_path_factory):
    return str(tiny_llava_folder(tmp_path_factory.mktemp("llava")))


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(5).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_an_image_is_asked_about(picture, mllm, capsys):
    assert main(["ask", str(picture), *QUESTIONS, "--mllm", mllm]) == 0
    model = load_mllm(mllm)
    expected = model.answer(model.views([Image.open(picture)]) * 2, QUESTIONS, 128)
    assert capsys.readouterr().out == "\n".join(expected) + "\n"
    assert main(["ask", str(picture), QUESTIONS[0], "--mllm", mllm, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["answers"] == [{"question": QUESTIONS[0], "answer": expected[0]}]


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    config = CodecConfig(widths=(8, 8, 8), latent_channels=8, groups=(4, 4), blocks=1, hyper_channels=8)
    folder = tmp_path_factory.mktemp("codec")
    torch.manual_seed(6)
    save_codec(folder, Elic(config))
    return str(folder)


def test_a_stream_is_asked_about_through_its_adapter(picture, mllm, codec, tmp_path, capsys):
    stream = Codec.from_pretrained(codec).encode([Image.open(picture)], quality=3)[0]
    (tmp_path / "picture.cotam").write_bytes(stream)
    (tmp_path / "renamed.png").write_bytes(stream)
    adapter = LatentAdapter(AdapterConfig(latent_channels=8, feature_dim=32, grid=(8, 8), width=16))
    torch.nn.init.normal_(adapter.out_projection.weight)
    adapter.save(tmp_path / "adapter")

    model, decoded = load_mllm(mllm), Codec.from_pretrained(codec).decode([stream])
    plain = model.answer(model.views([decoded[0].image]), QUESTIONS[:1], 128)[0]
    helped = model.answer(model.decoded_views(decoded, adapter.eval()), QUESTIONS[:1], 128)[0]
    assert plain != helped

    arguments = [QUESTIONS[0], "--mllm", mllm, "--codec", codec]
    for name, extra, expected in [
        ("picture.cotam", [], plain),
        ("renamed.png", [], plain),
        ("picture.cotam", ["--adapter", str(tmp_path / "adapter")], helped),
    ]:
        assert main(["ask", str(tmp_path / name), *arguments, *extra]) == 0
        assert capsys.readouterr().out == f"{expected}\n"

    (tmp_path / "picture.cotam").write_bytes(stream[:-5])
    assert main(["ask", str(tmp_path / "picture.cotam"), *arguments]) == 1
    assert "truncated" in capsys.readouterr().err


def test_mistakes_are_answered_with_one_sentence(picture, mllm, tmp_path, capsys):
    (tmp_path / "text.png").write_text("not an image")
    clip = str(tiny_clip_folder(tmp_path / "clip"))
    mistakes = {
        "missing.png": ["missing.png", "What?", "--mllm", mllm],
        "text.png": [str(tmp_path / "text.png"), "What?", "--mllm", mllm],
        "missing.cotam": ["missing.cotam", "What?", "--mllm", mllm],
        "empty": [str(picture), " ", "--mllm", mllm],
        "--adapter": [str(picture), "What?", "--mllm", mllm, "--adapter", "anything"],
        "'clip'": [str(picture), "What?", "--mllm", clip],
        "There is no model at": [str(picture), "What?", "--mllm", str(tmp_path / "nowhere")],
    }
    for words, arguments in mistakes.items():
        assert main(["ask", *arguments]) == 1
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
        assert "Traceback" not in error
