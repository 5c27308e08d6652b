"""`cotam bench grid`: both ways give the same answers, and only the first MLLM costs encodings. On tiny models."""

import json

from benchmarks.grid import measure
from components.codec import Codec
from components.evaluation.coding import load_guide
from components.mllm import load_mllm
from tests.models import tiny_clip_folder, tiny_llava_folder
from tests.small_checkout import tiny_codec_folder


def test_only_the_first_mllm_costs_encodings(tmp_path):
    guide = load_guide(tiny_clip_folder(tmp_path / "clip"), layers=[0, 1], grid=4, k=0.75)
    codec = Codec.from_pretrained(tiny_codec_folder(tmp_path / "codec"))
    mllms = [load_mllm(tiny_llava_folder(tmp_path / f"llava-{seed}", seed)) for seed in (0, 1)]
    found = json.loads(json.dumps(measure(codec, guide, mllms, [0, 5], images=2, rounds=1)))
    assert found["encoded"] == {"afresh": [4, 4], "cached": [4, 0]}
    assert found["questions"] > 10
    for ratio in ("times_as_fast", "times_as_fast_encoding"):
        assert 0 < found[ratio]["least"] <= found[ratio]["median"] <= found[ratio]["most"]
