"""CompressAI's rANS coder without the rest of CompressAI.

`from compressai import ans` runs the whole package first: its datasets, models and, through them, torch_geometric. That
takes longer than all that a codec's process loads besides. The coder is a compiled module of its own, and is loaded
from its file.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType

from components.errors import CotamError

_PACKAGE, _NAME = "compressai", "compressai.ans"


def load_coder() -> ModuleType:
    """The compiled module, with the classes `BufferedRansEncoder`, `RansEncoder` and `RansDecoder`.

    Raises:
        CotamError: CompressAI is not installed, or without its compiled part.
    """
    if _NAME in sys.modules:
        return sys.modules[_NAME]
    package = find_spec(_PACKAGE)  # finds a package without running it
    spec = package and PathFinder.find_spec(_NAME, package.submodule_search_locations)
    if spec is None or spec.loader is None:
        raise CotamError("CompressAI's entropy coder is not installed; run `make setup`.")
    try:
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        raise CotamError(f"CompressAI's entropy coder does not load ({error}); install CompressAI again.") from None
    finally:
        sys.modules.pop(_NAME, None)  # else a later `import compressai` would take it and not have it as an attribute
    return module


ans = load_coder()
