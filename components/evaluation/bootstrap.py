"""How sure a number is: the images are drawn again with replacement, for all methods alike, and the number recomputed.

What is resampled is the image, with all its questions and all its files: answers about one image are not independent,
and methods are compared on the same images. Row 0 of every array of resamples is the real set, each image once.
"""

import numpy as np

INTERVAL = (2.5, 97.5)


def image_weights(images: int, replicates: int, seed: int) -> np.ndarray:
    """(1 + replicates, images) float: how often each image is drawn; the first row is all ones."""
    rng = np.random.default_rng([seed, images])
    draws = rng.multinomial(images, np.full(images, 1 / images), size=replicates)
    return np.concatenate([np.ones((1, images)), draws])


def interval(resamples: np.ndarray) -> tuple[float, float] | None:
    """The 95 % percentile interval of the replicates (row 0, the real set, is left out); None where it has none.

    A replicate in which the number is not defined (NaN) may have been anything, so it counts once as the lowest and
    once as the highest. With more than 2.5 % of them an end of the interval would be one of these: there is none.
    """
    replicates = np.asarray(resamples, float)[1:]
    failed = np.isnan(replicates)
    if not len(replicates) or failed.mean() > INTERVAL[0] / 100:
        return None
    low = np.percentile(np.where(failed, -np.inf, replicates), INTERVAL[0], method="higher")
    high = np.percentile(np.where(failed, np.inf, replicates), INTERVAL[1], method="lower")
    return float(low), float(high)
