"""Results that are of other settings, weights or adapters than the checkout has by now are passed over."""

import pytest

from components import config
from components.evaluation.variant_record import made_of
from components.evaluation.variant_results import Reader
from components.files import read_json, write_json
from components.variants import find_run, runs
from tests.test_verdicts import OVERRIDES, SEED, made_up

COTAM, TUNED = {"full", "k-045"}, {"cotam-ft"}
LEARNED = COTAM | TUNED | {"icmh-adapt", "bridge-d1", "mft", "cft"}
THERE = LEARNED | {"no-adapter"}
SETTINGS_CHANGED = [
    ({"adapter.joint_epochs": "9"}, COTAM | TUNED, COTAM | TUNED),
    ({"adapter.lambda_high": "2.0"}, COTAM | TUNED | {"icmh-adapt"}, COTAM | TUNED),
    ({"adapter.batch": "8"}, COTAM | TUNED | {"bridge-d1", "mft"}, COTAM | TUNED),
    ({"adapter.qualities": "[0, 1]"}, LEARNED, COTAM | TUNED),
    ({"baselines.mllm_tuning.questions": "1"}, {"mft", "cft"}, {"mft", "cft"}),
    ({"guidance.grid": "4"}, COTAM | TUNED | {"no-adapter"}, COTAM | TUNED | {"no-adapter"}),
    ({"scenes.images": "100"}, LEARNED, set()),
    ({"data.source": "data/mine"}, LEARNED, set()),
    ({"evaluation.bootstrap": "10"}, set(), set()),
]


@pytest.fixture
def there(tmp_path):
    """A checkout with models, and results of them: the function that makes a run's, and one that names the stale."""
    add, _, settings = made_up(tmp_path, config.load(overrides=OVERRIDES))
    write_weights(tmp_path)
    for variant in THERE:
        run = find_run(settings, variant, SEED)
        if run.model:
            write_model(tmp_path, run.model, "adapter")

    def write(*variants):
        for variant in variants:
            add(variant, 0.1, made_of=made_of(find_run(settings, variant, SEED), tmp_path))

    def stale(overrides=None):
        changed = config.load(overrides=OVERRIDES | (overrides or {}))
        found = Reader(5, SEED).results(tmp_path, runs(changed), changed)
        files = {path.name for path in (tmp_path / "results/variants").iterdir()}
        known = {run.name for run in runs(changed)}
        assert {f"{variant}-{SEED}" for variant in found.runs} == (files & known) - found.stale.keys()
        assert found.about.keys() == found.runs.keys()
        return {name.removesuffix(f"-{SEED}"): why for name, why in found.stale.items()}

    write(*THERE)
    return write, stale


def write_weights(root, **changes):
    hashes = {"codec": {"elic": "c"}, "mllm": {"micro-llava": "m"}, "tower": "t"}
    write_json(root / "data/weights.json", hashes | changes)


def write_model(root, model, part, content="first"):
    folder = root / model / part
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_text(content)


@pytest.mark.parametrize(("overrides", "expected", "of_older"), SETTINGS_CHANGED)
def test_other_settings_of_what_a_method_reads(there, tmp_path, overrides, expected, of_older):
    _, stale = there
    assert stale() == {}
    assert stale(overrides).keys() == expected
    for path in (tmp_path / "results/variants").glob("*/scores.json"):  # as they were written before
        content = read_json(path)
        kept = {"guidance", "baselines", *(["adapter"] if "cotam" in content["method"] else [])}
        settings = {key: value for key, value in content["settings"].items() if key in kept}
        older = {key: value for key, value in content.items() if key != "made_of"}
        write_json(path, older | {"schema": 1, "settings": settings})
    assert stale() == {}
    assert stale(overrides).keys() == of_older


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mllm": {"micro-llava": "other"}}, THERE),
        ({"codec": {"elic": "other"}}, THERE),
        ({"tower": "other"}, COTAM | TUNED | {"no-adapter"}),
        ({"codec": {"elic": "c", "dcae": "d"}}, set()),
    ],
)
def test_other_weights(there, tmp_path, changes, expected):
    _, stale = there
    write_weights(tmp_path, **changes)
    found = stale()
    assert found.keys() == expected
    assert set(found.values()) <= {"made with other weights"}
    (tmp_path / "data/weights.json").unlink()
    assert stale() == {}  # nothing says that they are others


def test_an_adapter_that_was_trained_anew(there, tmp_path):
    write, stale = there
    joint = find_run(config.load(), "full", SEED).model
    write_model(tmp_path, joint, "adapter", "second")
    assert stale() == dict.fromkeys(COTAM, "made with other weights") | {
        "cotam-ft": f"made with the adapter of full-{SEED}, whose results are stale"
    }
    write("full")
    assert stale() == {"k-045": "made with other weights"}
    (tmp_path / joint / "adapter/weights").unlink()  # as where results were fetched without it
    (tmp_path / joint / "adapter").rmdir()
    assert stale() == {"k-045": f"made with another adapter than full-{SEED} has by now"}


def test_a_shared_adapter_is_judged_by_the_run_that_it_is_of(there, tmp_path):
    _, stale = there
    path = tmp_path / f"results/variants/full-{SEED}/scores.json"
    content = read_json(path)
    write_json(path, content | {"changes": {"adapter": {"blocks": 4}}})
    why = f"made with the adapter of full-{SEED}, whose results are stale"
    assert stale() == {"full": "made with other settings", "k-045": why, "cotam-ft": why}
    path.unlink()
    path.parent.rmdir()
    assert stale() == {"k-045": f"made with the adapter of full-{SEED}, of which there are no results"}


def test_another_map_leaves_the_adapters_other_users_as_they_are(there):
    _, stale = there
    entry = {"variants": "{full: {}, k-045: {guidance: {k: 0.4}, adapter_of: full}, cotam-ft: {method: cotam-ft}}"}
    assert stale(entry) == {"k-045": "made with other settings"}
