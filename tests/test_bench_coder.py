"""`cotam bench coder`: every way decodes what it encodes, and the first is what the codec does."""

import numpy as np
import pytest

from benchmarks import coder as bench
from components.codec import Codec
from components.codec.tables import TABLES
from components.codec.wire import write
from tests.small_checkout import scenes, tiny_codec_folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    [picture] = scenes(1)
    codec = Codec.from_pretrained(tiny_codec_folder(tmp_path_factory.mktemp("models") / "codec"))
    return bench.parts_of(codec, picture, 2)


def test_the_first_way_is_the_codecs_own(parts):
    symbols, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert bench.compressai_way().write(parts) == write(symbols, rows, None, TABLES)
    found = bench.compare([bench.compressai_way()], parts, rounds=2)
    assert found["symbols"] == len(symbols)
    way = found["ways"]["compressai"]
    assert way["bits"] == 8 * len(write(symbols, rows, None, TABLES))
    assert way["read"]["ratio"] == {"median": 1, "lower_quartile": 1, "upper_quartile": 1}


def test_a_way_that_decodes_something_else_is_found_out(parts):
    base = bench.compressai_way()
    wrong = bench.Way("wrong", base.write, lambda stream, rows: [part + 1 for part in base.read(stream, rows)])
    with pytest.raises(RuntimeError, match="wrong does not decode"):
        bench.compare([base, wrong], parts, rounds=2)


def test_constriction_decodes_what_it_encodes(parts):
    pytest.importorskip("constriction")
    found = bench.compare([bench.compressai_way(), bench.table_way(), bench.gaussian_way()], parts, rounds=2)
    bits = [way["bits"] for way in found["ways"].values()]
    assert max(bits) < min(bits) * 1.1 + 64
