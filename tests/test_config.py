"""Settings: the files we ship load, and every mistake is one sentence that names the key."""

import pytest
from pydantic import ValidationError

from components import config
from components.errors import CotamError
from components.evaluation import streams
from components.paths import ROOT

SHIPPED = (ROOT / "params.yaml").read_text()


def test_the_profiles_have_the_same_keys_as_the_defaults():
    variants = ("codec.", "mllm.", "variants.")  # named entries, which a profile names as it likes
    keys = [
        {key for key, _ in config.dotted_keys(config.read_yaml(path)) if not key.startswith(variants)}
        for path in (ROOT / "params.yaml", *(ROOT / "profiles").glob("*.yaml"))
    ]
    assert len(keys) > 2 and all(other == keys[0] for other in keys)


def test_the_paper_profile_has_the_papers_numbers():
    paper = config.load(ROOT / "profiles/paper.yaml")
    assert (paper.adapter.warmup_epochs, paper.adapter.joint_epochs) == (1, 4)
    assert (paper.adapter.lambda_low, paper.adapter.lambda_high) == (0.1, 1.0)
    assert (paper.guidance.k, paper.guidance.grid, paper.guidance.layers) == (0.75, 8, (0, 1, 2))


def test_an_unknown_task_is_one_sentence_that_names_the_key_and_the_tasks():
    with pytest.raises(CotamError) as caught:
        config.load(overrides={"evaluation.tasks": "[mme, mmbench_en_dev]"})
    assert str(caught.value).startswith("params.yaml: evaluation.tasks.1 must be 'mme', 'textvqa_val', ")
    assert str(caught.value).endswith("'mmbench_en_dev_static' or 'videomme', not \"mmbench_en_dev\".")
    assert config.load(overrides={"evaluation.tasks": "[pope]"}).changed("full")["evaluation"]["tasks"] == []


def test_the_world_profile_evaluates_every_mllm_that_ships_at_high_resolution():
    world = config.load(ROOT / "profiles/world.yaml")
    shipped = {folder.parent.name for folder in (ROOT / "pretrained/mllm").glob("*/model.safetensors")}
    assert set(world.mllms) == shipped
    assert all((ROOT / world.mllm[name].weights).is_dir() for name in world.mllms)
    assert world.evaluation.detail > 1


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        config.load().adapter.batch = 1


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        ("lambda_high:", "lamda_high:", "adapter.lamda_high is not a setting; did you mean adapter.lambda_high?"),
        ("seed: 7", "seed: 7\nsed: 7", "sed is not a setting; did you mean seed?"),
        ("k: 0.75", "k: three", 'guidance.k must be a number, not "three".'),
        ("grid: 8", "grid: 8.5", "guidance.grid must be a whole number, not 8.5."),
        ("seed: 7", "seed: true", "seed must be a whole number, not true."),
        (
            "micro-llava: {weights: pretrained/mllm/micro-llava}",
            "micro-llava: {weights: pretrained/mllm/micro-llava, dtype: int8}",
            "mllm.micro-llava.dtype must be 'auto', 'bfloat16', 'float16' or 'float32', not \"int8\".",
        ),
        (
            "micro-llava: {weights: pretrained/mllm/micro-llava}",
            "micro-llava: {weights: pretrained/mllm/micro-llava, dtyp: float16}",
            "mllm.micro-llava.dtyp is not a setting.",
        ),
        ("seed: 7", "seed: -1", "seed must be greater than or equal to 0, not -1."),
        ("[0, 1, 2, 3, 4, 5]", "[0, 11]", "evaluation.qualities.1 must be less than or equal to 9, not 11."),
        ("[0, 1, 2, 3, 4, 5]", "[2, 1]", "evaluation.qualities must rise without repeating a value."),
        ("[0, 1, 2, 3, 4, 5]", "[]", "evaluation.qualities must not be empty."),
        ("tasks: []", "tasks: [mme, mme]", "evaluation.tasks names something twice."),
        ("codecs: [elic]", "codecs: [wide]", "codecs names wide, but there is no codec.wide."),
        (
            "codecs: [elic]\ncodec:\n  elic:",
            "codecs: [cotam]\ncodec:\n  cotam:",
            "codecs names cotam, as the results call another method; give it another name.",
        ),
        ("size: 128", "size: 100", "scenes.size must be 128, 256, 384 or 512, not 100."),
        ("heads: 4", "heads:", "adapter.heads must be a whole number, not null."),
        ("  heads: 4\n", "", "adapter.heads is missing."),
        ("heads: 4", "heads: 3", "adapter.width must be a multiple of heads (3), not 256."),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_key(tmp_path, right, wrong, sentence):
    assert right in SHIPPED
    path = tmp_path / "params.yaml"
    path.write_text(SHIPPED.replace(right, wrong, 1))
    with pytest.raises(CotamError) as caught:
        config.load(path)
    assert str(caught.value) == f"params.yaml: {sentence}"


def test_no_codec_may_go_by_another_methods_name():
    assert set(config.METHODS) == {streams.CLEAN.method, streams.JPEG, streams.WEBP} | set(config.VARIANT_METHODS)
    assert streams.COTAM in config.VARIANT_METHODS and streams.AVIF in config.VARIANT_METHODS
    for name in config.METHODS:
        overrides = {"codecs": f"[elic, {name}]", "codec": f"{{elic: {{weights: a}}, {name}: {{weights: b}}}}"}
        with pytest.raises(CotamError, match=f"^params.yaml: codecs names {name}, as the results call another method"):
            config.load(overrides=overrides)


@pytest.mark.parametrize("text", ["adapter: [", "seed: 7\nseed: 8\n", "7\n", "seed: 2020-01-01\n", "\x00"])
def test_what_is_not_a_settings_file_is_said_in_one_line(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(CotamError) as caught:
        config.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(CotamError, match="does not exist"):
        config.load(tmp_path / "params.yaml")


def test_overrides_are_yaml_values_for_existing_keys():
    overridden = config.load(overrides={"adapter.learning_rate": "1e-4", "evaluation.qualities": "[1, 3]"})
    assert overridden.adapter.learning_rate == 1e-4
    assert overridden.evaluation.qualities == (1, 3)
    with pytest.raises(CotamError, match=r"did you mean adapter\.lambda_high"):
        config.load(overrides={"adapter.lambda_hihg": "1"})
    with pytest.raises(CotamError, match=r"adapter\.heads must be"):
        config.load(overrides={"adapter.heads": "many"})
