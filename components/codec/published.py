"""Published checkpoints of single-rate codecs: another project's state dict -> our networks with gains of one.

A file is read without ever unpickling objects (`torch.load(weights_only=True)`, or safetensors). What it holds is told
by the names of its tensors; every tensor that the networks need must be there in the right shape.
"""

import hashlib
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from components.codec.dcae import Dcae
from components.codec.dcae_published import is_dcae, published_dcae
from components.codec.elic2022 import Elic2022, Elic2022Config
from components.errors import CotamError

StateDict = dict[str, Tensor]
_OURS = ("log_QC", "log_spread_C", "quality_side_QS", "hyper_mean_QC", "hyper_log_scale_QC")  # not published
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys below which training scripts put the tensors

# Older versions of CompressAI name a density's layers otherwise: `_matrix0` is `matrices.0`.
_OLD_DENSITY = re.compile(r"(entropy_bottleneck)\._(matrix|bias|factor)(\d+)$")
_NEW_DENSITY = {"matrix": "matrices", "bias": "biases", "factor": "factors"}

_HYPER, _Y = "latent_codec.hyper.", "latent_codec.y."
_GROUP = _Y + "latent_codec.y{}."
# Tables and bounds that CompressAI derives from the weights.
_DERIVED = re.compile(
    r"(^|\.)(target|_offset|_quantized_cdf|_cdf_length|scale_table|scale_bound"
    r"|(likelihood_lower_bound|lower_bound_scale)\.bound)$"
)


def load_published(path: str | Path) -> tuple[nn.Module, str]:
    """Networks of a published checkpoint, in evaluation mode, float32, and the identity that their streams carry.

    Args:
        path: .safetensors, or a file of `torch.save` (.pth, .pth.tar, .pt).

    Raises:
        CotamError: the file is damaged, is no checkpoint, or is one of a codec that is not known.
    """
    tensors = read_tensors(path)
    for known, build in _FORMATS:
        if known(tensors):
            model = build(tensors, path)
            return model.eval(), identity(model)
    raise CotamError(
        f"{path} is no checkpoint of a codec that cotam knows; give one of CompressAI's Elic2022Official or of DCAE."
    )


def read_tensors(path: str | Path) -> StateDict:
    """The named tensors of a checkpoint, on the CPU, floats as float32.

    Raises:
        CotamError: the file is damaged or holds no named tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError):
        raise CotamError(f"{path} cannot be read; give a checkpoint's file.") from None
    except pickle.UnpicklingError:
        raise CotamError(f"{path} holds more than tensors, or is damaged; save its state dict alone.") from None
    except Exception as error:  # whatever a damaged file makes of a reader
        raise CotamError(f"{path} is damaged or no checkpoint ({type(error).__name__}); copy it again.") from None
    for name in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping):
        raise CotamError(f"{path} holds no named tensors; save the model's state dict.")
    tensors = {str(name).removeprefix("module."): value for name, value in found.items() if isinstance(value, Tensor)}
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def fill(model: nn.Module, tensors: StateDict, path: str | Path) -> None:
    """Give a model its tensors; gains and the like, which no published model has, stay as they are.

    Args:
        tensors: by the names of `model`; those that are derived from others are passed over.

    Raises:
        CotamError: one is missing, left over, not finite, or has another shape.
    """

    def weights(found: StateDict) -> StateDict:
        return {name: value for name, value in found.items() if is_weight(name) and not name.endswith(".mask")}

    needed, given = weights(model.state_dict()), weights(tensors)
    wrong = [name for name in given if name not in needed or given[name].shape != needed[name].shape]
    wrong += [name for name in needed if name not in given and not name.endswith(_OURS)]
    wrong += [name for name in given if not bool(given[name].isfinite().all())]
    if wrong:
        raise CotamError(f"{path} does not fit the codec that it seems to be ({min(wrong)}); copy it again.")
    model.load_state_dict(given, strict=False)


def is_weight(name: str) -> bool:
    """Whether a tensor of a codec's state dict is a weight, not derived from others."""
    return not _DERIVED.search(name)


def identity(model: nn.Module) -> str:
    """Eight hexadecimal digits that name these weights, in whatever file they came."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if is_weight(name):
            digest.update(name.encode() + b"\0" + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]


def _is_elic2022(tensors: StateDict) -> bool:
    return "g_a.0.weight" in tensors and f"{_GROUP.format(0)}context_prediction.weight" in tensors


def _elic2022(tensors: StateDict, path: str | Path) -> Elic2022:
    """CompressAI's `Elic2022Official`, of any width and groups."""
    groups = []
    while (weight := tensors.get(f"{_GROUP.format(len(groups))}context_prediction.weight")) is not None:
        groups.append(weight.shape[1])
    try:
        sizes = Elic2022Config(
            width=tensors["g_a.0.weight"].shape[0], latent_channels=sum(groups), groups=tuple(groups)
        )
    except (ValueError, IndexError):
        raise CotamError(f"{path} names a codec that cannot be (groups {groups}); copy it again.") from None
    model = Elic2022(sizes)
    fill(model, {_elic2022_name(_current(name)): value for name, value in tensors.items()}, path)
    for layer in model.entropy.spatial_context:  # CompressAI sets what the mask hides to zero when it first runs
        layer.weight.data *= layer.mask
    return model


def _current(name: str) -> str:
    """The name that newer versions of CompressAI give a tensor."""
    return _OLD_DENSITY.sub(lambda match: f"{match[1]}.{_NEW_DENSITY[match[2]]}.{match[3]}", name)


def _elic2022_name(name: str) -> str:
    """CompressAI's name of a tensor -> ours."""
    name = name.replace(f"{_HYPER}entropy_bottleneck.", "entropy.bottleneck.").replace(_HYPER, "entropy.")
    if match := re.fullmatch(re.escape(_Y) + r"channel_context\.y(\d+)\.(.*)", name):
        return f"entropy.channel_context.{int(match[1]) - 1}.{match[2]}"
    if match := re.fullmatch(re.escape(_Y) + r"latent_codec\.y(\d+)\.(\w+)\.(.*)", name):
        part = {"context_prediction": "spatial_context", "entropy_parameters": "aggregation"}.get(match[2], match[2])
        return f"entropy.{part}.{match[1]}.{match[3]}"
    return name


def _dcae(tensors: StateDict, path: str | Path) -> Dcae:
    """A release of DCAE, of any widths."""
    named = {_current(name): value for name, value in tensors.items()}
    return published_dcae(named, lambda model, found: fill(model, found, path))


_FORMATS: list[tuple[Callable[[StateDict], bool], Callable[[StateDict, str | Path], nn.Module]]] = [
    (_is_elic2022, _elic2022),
    (is_dcae, _dcae),
]
