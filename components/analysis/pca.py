"""Token features as colours: three principal components, in one basis for the raw and the compressed image."""

import numpy as np
from sklearn.decomposition import PCA

from components.errors import CotamError


def pca_colours(features_VND: np.ndarray) -> np.ndarray:
    """Colours of tokens.

    The basis is fitted to the tokens of all versions together, and so is the scale: 1 % of the values of a component
    are below black and 1 % above full colour. Otherwise two pictures of one thing would not be comparable.

    Args:
        features_VND: of the patches, any floating dtype.

    Returns:
        float64 (V, N, 3) in [0, 1]. A component's sign is such that its largest weight is positive.

    Raises:
        CotamError: there are fewer than three tokens or features.
    """
    versions, patches, width = features_VND.shape
    if min(versions * patches, width) < 3:
        raise CotamError(f"Three components need three tokens and features, not {versions * patches} and {width}.")
    flat = features_VND.reshape(-1, width).astype(np.float64)
    pca = PCA(3, svd_solver="covariance_eigh" if width <= len(flat) else "full").fit(flat)
    signs = np.sign(pca.components_[np.arange(3), np.abs(pca.components_).argmax(1)])
    parts = pca.transform(flat) * signs
    low, high = np.percentile(parts, (1, 99), axis=0)
    return np.clip((parts - low) / np.maximum(high - low, 1e-12), 0, 1).reshape(versions, patches, 3)
