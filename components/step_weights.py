"""The step that pins models by content: the SHA-256 of every codec, MLLM and tower that the settings and variants use.

Later steps depend on these hashes and not on the models' files, because a model may also come from the registry or from
the Hugging Face hub, and because DVC can depend on one key of this file: another MLLM does not encode anything again.
What kind each MLLM is stands beside them, for the report, which has no use for the models themselves.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from components.files import sha256_tree, write_json
from components.mllm_kinds import kind_of
from components.progress import track
from components.weights import resolve

if TYPE_CHECKING:
    from components.step_inputs import StepInputs


def run(inputs: "StepInputs") -> None:
    """Write weights.json: {"codec": {NAME: hash}, "mllm": {NAME: hash}, "tower": hash, "kinds": {MLLM: its kind}}."""
    params = inputs.params
    entries = [params.variants[name] for name in params.variants]
    codecs, mllms = (
        dict.fromkeys([*listed, *(entry[key] for entry in entries if key in entry)])
        for listed, key in ((params.codecs, "codec"), (params.mllms, "mllm"))
    )
    hashes = {
        "codec": {name: _hash(inputs, params.codec[name].weights) for name in track(codecs, "Hashing codecs")},
        "mllm": {name: _hash(inputs, params.mllm[name].weights) for name in track(mllms, "Hashing MLLMs")},
        "tower": _hash(inputs, params.guidance.tower),
    }
    kinds = {name: kind_of(_folder(inputs, params.mllm[name].weights)) for name in mllms}
    write_json(inputs.out / "weights.json", hashes | {"kinds": kinds})


def _hash(inputs: "StepInputs", name: str) -> str:
    return sha256_tree(_folder(inputs, name))


def _folder(inputs: "StepInputs", name: str) -> Path:
    here = inputs.paths.root / name
    return here if here.is_dir() else resolve(name)
