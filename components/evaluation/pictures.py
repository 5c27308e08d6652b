"""Pictures as the evaluation reads them: the benchmarks' images, and photographs that no model was trained on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from components.errors import CotamError

Pictures = dict[str, np.ndarray]
"""Image name -> uint8 (H, W, 3)."""


def benchmark_pictures(folder: Path) -> Pictures:
    """The images of one style (`data/benchmarks/bench`), by name.

    Raises:
        CotamError: there are none.
    """
    return {file.stem: np.array(Image.open(file).convert("RGB")) for file in _files(folder)}


def benchmark_names(folder: Path) -> list[str]:
    """The names of the images of one style.

    Raises:
        CotamError: there are none.
    """
    return [file.stem for file in _files(folder)]


def benchmark_pixels(folder: Path) -> dict[str, int]:
    """Image name -> its pixels, read off the files' heads.

    Raises:
        CotamError: there are none, or one is damaged.
    """
    sizes = {}
    for file in _files(folder):
        try:
            with Image.open(file) as image:
                sizes[file.stem] = image.width * image.height
        except OSError as error:
            raise CotamError(f"{file} cannot be read ({error}); run `dvc repro benchmarks`.") from None
    return sizes


def _files(folder: Path) -> list[Path]:
    files = sorted((folder / "images").glob("*.png"))
    if not files:
        raise CotamError(f"{folder} has no images; run `dvc repro benchmarks`.")
    return files


def photographs() -> Pictures:
    """The photographs that scikit-image and scikit-learn ship, of 300 x 451 to 500 x 741 pixels (height x width)."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    left, right, _ = data.stereo_motorcycle()
    single: dict[str, Callable[[], np.ndarray]] = {
        name: getattr(data, name) for name in ("astronaut", "coffee", "chelsea", "rocket")
    }
    found = {name: load() for name, load in single.items()}
    found |= {"motorcycle_left": left, "motorcycle_right": right}
    found |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    return {name: np.ascontiguousarray(picture[..., :3], dtype=np.uint8) for name, picture in found.items()}


def psnr(original: np.ndarray, decoded: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; two equal pictures have 100 dB."""
    error = np.mean((original.astype(np.float64) - decoded.astype(np.float64)) ** 2)
    return 100.0 if error == 0 else float(10 * np.log10(255**2 / error))
