"""`cotam ask`, as it is typed."""

import io
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
from tests.models_tiled import tiny_onevision_folder
from tests.videos import write_video

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

    (tmp_path / "picture.cotam").write_bytes(stream)
    adapter = ["--adapter", str(tmp_path / "adapter")]
    assert main(["ask", str(tmp_path / "picture.cotam"), *arguments, *adapter, "--json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (report["bits"], report["kind"]) == (8 * len(stream), "image")
    assert report["bpp"] == pytest.approx(8 * len(stream) / (140 * 90))
    assert f"{8 * len(stream)} bits for 140 x 90 pixels" in captured.err
    assert f"seen with the adapter {tmp_path / 'adapter'}" in captured.err

    (tmp_path / "picture.cotam").write_bytes(stream[:-5])
    assert main(["ask", str(tmp_path / "picture.cotam"), *arguments]) == 1
    assert "truncated" in capsys.readouterr().err


class Terminal(io.StringIO):
    """Standard input that says that it is a terminal."""

    def isatty(self):
        return True


def test_a_chat_remembers_what_was_said(picture, mllm, capsys, monkeypatch):
    model = load_mllm(mllm)
    [view] = model.views([Image.open(picture)])

    def answer(*turns):
        return model.answer([view], [turns], 128)[0]

    first = answer(QUESTIONS[0])
    second = answer(QUESTIONS[0], first, QUESTIONS[1])
    third = answer(QUESTIONS[0], first, QUESTIONS[1], second, QUESTIONS[0])
    assert second != answer(QUESTIONS[1])

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTIONS[1]}\n\n  {QUESTIONS[0]}\n"))
    chat = ["ask", str(picture), "--mllm", mllm, "--interactive"]
    assert main([*chat, QUESTIONS[0]]) == 0
    turns = zip([QUESTIONS[0], QUESTIONS[1], QUESTIONS[0]], [first, second, third], strict=True)
    assert capsys.readouterr().out == "".join(f"> {question}\n{said}\n" for question, said in turns)

    monkeypatch.setattr("sys.stdin", Terminal("\n".join(QUESTIONS)))
    assert main([*chat, "--forget", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["answers"]
    assert [one["answer"] for one in said] == [answer(question) for question in QUESTIONS]

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTIONS[0]}\nAn <image> ?\n{QUESTIONS[1]}\n"))
    assert main(chat) == 0
    captured = capsys.readouterr()
    assert captured.out == f"> {QUESTIONS[0]}\n{first}\n> {QUESTIONS[1]}\n{second}\n"
    assert captured.err == "A question must not contain <image>: it stands for the image.\n"

    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(chat) == 0
    assert capsys.readouterr().out == ""


def test_a_video_is_asked_about(codec, tmp_path, capsys, mllm):
    clip, out, model = write_video(tmp_path / "clip.mp4", 20), tmp_path / "clip.cotamv", tmp_path / "onevision"
    tiny_onevision_folder(model)
    assert main(["encode", str(clip), "-o", str(out), "--frames", "3", "--plain", "--codec", codec]) == 0
    capsys.readouterr()
    asked = ["ask", str(out), *QUESTIONS, "--mllm", str(model), "--codec", codec]
    assert main([*asked, "--json", "--maximum-pixels", str(3 * 64 * 48)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["kind"], report["frames"], report["bits"]) == ("video", 3, 8 * out.stat().st_size)
    assert report["bpp"] == pytest.approx(8 * out.stat().st_size / (3 * 64 * 48))
    onevision = load_mllm(model)
    [view] = onevision.video_views([Codec.from_pretrained(codec).decode_video(out.read_bytes())])
    assert [one["answer"] for one in report["answers"]] == onevision.answer([view] * 2, QUESTIONS, 128)

    assert main(["ask", str(clip), QUESTIONS[0], "--mllm", str(model), "--frames", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip()
    assert "bits" not in captured.err
    for arguments, words in [
        (["ask", str(out), "What?", "--mllm", mllm, "--codec", codec], "Llava takes no video; use LLaVA-OneVision"),
        (["ask", str(clip), "What?", "--mllm", str(model), "--frames", "1025"], "1025 frames are too many; choose"),
        ([*asked, "--frames", "2"], "is coded: its frames were chosen"),
        ([*asked, "--maximum-pixels", "9000"], "more than 9000 pixels; if you trust it, allow more (--maximum-pixels)"),
    ]:
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def test_mistakes_are_answered_with_one_sentence(picture, mllm, tmp_path, capsys):
    with pytest.raises(SystemExit) as found:
        main(["ask", str(picture), "--mllm", mllm])
    assert found.value.code == 2
    assert "QUESTION" in capsys.readouterr().err
    (tmp_path / "text.png").write_text("not an image")
    clip = str(tiny_clip_folder(tmp_path / "clip"))
    mistakes = {
        "missing.png": ["missing.png", "What?", "--mllm", mllm],
        "text.png": [str(tmp_path / "text.png"), "What?", "--mllm", mllm],
        "missing.cotam": ["missing.cotam", "What?", "--mllm", mllm],
        "empty": [str(picture), " ", "--mllm", mllm],
        "leave out --forget": [str(picture), "What?", "--mllm", mllm, "--forget"],
        "leave out --maximum-pixels": [str(picture), "What?", "--mllm", mllm, "--maximum-pixels", "9"],
        "is no video": [str(picture), "What?", "--mllm", mllm, "--frames", "3"],
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
