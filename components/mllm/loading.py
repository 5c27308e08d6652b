"""Opening an MLLM: its weights, whole, in the type and on the devices asked for; its processor; its family."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoProcessor, PreTrainedConfig, PreTrainedModel

from components.errors import CotamError
from components.files import read_json
from components.mllm.family import Family, check_config
from components.mllm.internvl import InternVL
from components.mllm.internvl2_weights import PUBLISHED, published_config, published_weights
from components.mllm.llava import Llava
from components.mllm.mllm import Mllm
from components.mllm.onevision import OneVision
from components.mllm.visual import Kind
from components.placing import check_device, check_dtype
from components.vision.registry import mllm_config, model_type_of
from components.vision.told import SENSELESS
from components.weights import first_reason, no_weights, resolve

FAMILIES: dict[str, type[Family]] = {
    "llava": Llava,
    "llava_onevision": OneVision,
    "internvl": InternVL,
    PUBLISHED: InternVL,
}
"""By the `model_type` of config.json."""

SPREAD = ("auto", "balanced", "balanced_low_0", "sequential", "disk")
"""What `device_map` may say in place of a device."""


def kinds_of(folder: Path) -> tuple[Kind, ...]:
    """What one question to the MLLM in a folder can be about; nothing is loaded.

    Raises:
        CotamError: its family is not in `FAMILIES`.
    """
    return _family(folder).kinds


def load_mllm(
    path_or_name: Path | str,
    batch_size: int = 64,
    *,
    dtype: torch.dtype | str | None = None,
    device_map: str | dict[str, Any] | None = None,
) -> Mllm:
    """Open the MLLM in a folder, or of a Hugging Face name.

    Args:
        path_or_name: see `components.weights.resolve`.
        batch_size: questions that go through the language model at a time.
        dtype: of the weights (`torch.bfloat16`, "bfloat16", or "auto": as they are stored). Default: as they are
            stored where there is a GPU, else float32.
        device_map: as transformers takes it. Default: over all GPUs ("auto"), or the CPU where there is none.

    Raises:
        CotamError: there is no such model, its files are damaged or do not belong together, its family is not in
            `FAMILIES`, `dtype` is none for weights, or `device_map` names a device that is not here.
    """
    folder = resolve(path_or_name)
    family, published = _family(folder), model_type_of(folder) == PUBLISHED
    on_gpu = torch.cuda.is_available()
    check_dtype(dtype)
    _check_places(device_map)
    dtype = dtype or ("auto" if on_gpu else torch.float32)
    device_map = device_map or ("auto" if on_gpu else None)
    config = None if published else mllm_config(folder)  # before gigabytes are read
    if config is not None:
        check_config(config)
    processor = _processor(folder, published)
    if config is not None:  # a published one's is made with the tokenizer's number
        _check_tokens(folder, config, processor)
    if not any(folder.glob("*.safetensors")):
        raise no_weights(folder)
    try:
        if published:
            model, told = _published(folder, processor, dtype, device_map)
        else:
            model, told = family.model_class.from_pretrained(
                folder, dtype=dtype, device_map=device_map, use_safetensors=True, output_loading_info=True
            )
    except (OSError, RuntimeError, SafetensorError) as error:
        if "ignore_mismatched_sizes" in str(error):  # all that transformers says; the rest it prints
            raise CotamError(
                f"The weights in {folder} have other sizes than its config.json says; fetch both again."
            ) from error
        raise CotamError(
            f"The weights in {folder} are missing or damaged ({first_reason(error)}); fetch them again."
        ) from error
    except (KeyError, *SENSELESS) as error:
        raise CotamError(
            f"transformers cannot build what {folder / 'config.json'} describes ({first_reason(error)}); fetch it "
            "again, or name another MLLM."
        ) from error
    # transformers makes up what a file lacks, and only warns.
    if missing := sorted(told["missing_keys"]):
        raise CotamError(f"{folder} has no weights for {missing[0]}; fetch them again.")
    try:
        return Mllm(family.open(model, processor), processor, batch_size)
    except SENSELESS as error:
        raise _incomplete(folder, error) from error


def _check_places(device_map: str | dict[str, Any] | None) -> None:
    """Refuse what transformers would tell, after a while, as something wrong with the weights."""
    for place in device_map.values() if isinstance(device_map, dict) else [device_map]:
        if place is not None and place not in SPREAD:
            check_device(place, "device_map", ", or auto")


def _family(folder: Path) -> type[Family]:
    model_type = model_type_of(folder)
    if model_type not in FAMILIES:
        raise CotamError(f"{folder} holds a {model_type!r} model; an MLLM must be one of {', '.join(FAMILIES)}.")
    return FAMILIES[model_type]


def _processor(folder: Path, published: bool) -> Any:
    if published:
        from components.mllm.internvl2_processor import published_processor

        return published_processor(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CotamError(
            f"{folder} has no processor: its tokenizer or image processor files are missing; fetch them again."
        ) from error
    except (KeyError, *SENSELESS) as error:
        raise _incomplete(folder, error) from error
    if not processor.chat_template:
        raise CotamError(
            f"{folder} has no chat template, without which nothing can be asked; add its chat_template.jinja."
        )
    return processor


def _incomplete(folder: Path, error: Exception) -> CotamError:
    """That what stands beside the weights and config.json is not whole."""
    return CotamError(
        f"The tokenizer or image processor files in {folder} are incomplete ({first_reason(error)}); fetch "
        "tokenizer_config.json and processor_config.json again."
    )


def _check_tokens(folder: Path, config: PreTrainedConfig, processor: Any) -> None:
    """Whether config.json and the tokenizer mean the same tokens where images and videos stand.

    Raises:
        CotamError: they do not, so that no image would be found in a prompt.
    """
    for kind in ("image", "video"):
        number, token = getattr(config, f"{kind}_token_id", None), getattr(processor, f"{kind}_token", None)
        if number is None or token is None:
            continue
        found = processor.tokenizer.convert_tokens_to_ids(token)
        if found != number:
            raise CotamError(
                f"In {folder} config.json has token {number} for {kind}s and the tokenizer has {token} as token "
                f"{found}; fetch config.json and the tokenizer's files again, both of one version."
            )


def _published(
    folder: Path, processor: Any, dtype: torch.dtype | str, device_map: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """An InternVL2 in the layout of its own code, and what transformers says of its loading."""
    config = published_config(folder, processor.image_token_id)
    if dtype == "auto":
        dtype = read_json(folder / "config.json").get("torch_dtype", "float32")
    model, told = InternVL.model_class.from_pretrained(
        None,
        config=config,
        state_dict=published_weights(folder, config),
        dtype=dtype,
        device_map=device_map,
        output_loading_info=True,
    )
    tokenizer = processor.tokenizer
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, told
