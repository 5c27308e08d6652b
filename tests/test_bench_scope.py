"""`python -m benchmarks.scope`: three scopes of guidance on images of several tiles. On tiny models."""

import json

from benchmarks import scope as bench
from benchmarks.ways import PLAIN
from components import config
from tests.models import tiny_clip_folder
from tests.models_tiled import tiny_internvl_folder
from tests.small_checkout import tiny_codec_folder


def test_every_scope_is_compared_and_claim_c13_printed(tmp_path, monkeypatch, capsys):
    settings = config.load(
        overrides={
            "codec.elic.weights": str(tiny_codec_folder(tmp_path / "codec")),
            "guidance.tower": str(tiny_clip_folder(tmp_path / "clip")),
            "evaluation.qualities": "[0, 8]",
            "evaluation.bootstrap": "20",
            "threads": "1",
        }
    )
    mllm = tiny_internvl_folder(tmp_path / "internvl")
    result = json.loads(json.dumps(bench.measure(3, 2, mllm, None, settings)))
    assert set(result["ways"]) == {"clean", PLAIN, *bench.SCOPES}
    sizes = {way: tuple(point["bpp"] for point in entry["curve"]) for way, entry in result["ways"].items()}
    assert len({sizes[way] for way in (PLAIN, *bench.SCOPES)}) == 1 + len(bench.SCOPES)
    assert set(result["hierarchical_against"]) == {"local", "global"}
    monkeypatch.setattr(bench, "measure", lambda *_: result)
    monkeypatch.setattr("sys.argv", ["scope"])
    assert bench.main() == 0
    assert "against global guidance" in capsys.readouterr().out
