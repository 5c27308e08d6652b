"""What a model's JSON files say, where it is taken as it stands: a value that is missing or senseless is a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import transformers
from huggingface_hub.errors import StrictDataclassError

from components.errors import CotamError
from components.weights import first_reason

SENSELESS = (AssertionError, AttributeError, IndexError, TypeError, ValueError, StrictDataclassError)
"""What Python, torch and transformers raise where a value has another type or size than they expect."""


@contextmanager
def as_told_by(path: Path) -> Iterator[None]:
    """Around lines that take values from a file's JSON, and make of them what it describes.

    Raises:
        CotamError: the file lacks one, or nothing can be made of it.
    """
    try:
        yield
    except KeyError as error:
        raise CotamError(f"{path} does not say its {error.args[0]}; fetch it again.") from None
    except SENSELESS as error:
        raise not_as_read(path, error) from error


def not_as_read(path: Path, error: Exception) -> CotamError:
    """That a file holds a value of which transformers makes nothing."""
    version = f"transformers {transformers.__version__}"
    return CotamError(f"{path} is not as {version} reads it ({first_reason(error)}); fetch it again.")
