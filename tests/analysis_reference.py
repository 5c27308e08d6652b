"""The equations of the paper's section 2.2.1, read out loop by loop in float64: slow, and right because it is plain.

An image at a time, a layer at a time; attention as numpy arrays A[k, j], tokens before the patches have no place.
"""

from math import hypot

import numpy as np


def softmax_attention(query_HTd: np.ndarray, key_HTd: np.ndarray, scaling: float) -> np.ndarray:
    """Attention averaged over heads: (T, T)."""
    heads = []
    for query_Td, key_Td in zip(query_HTd.astype(np.float64), key_HTd.astype(np.float64), strict=True):
        scores = scaling * query_Td @ key_Td.T
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(scores / scores.sum(-1, keepdims=True))
    return np.mean(heads, 0)


def distance(one: int, other: int, columns: int) -> float:
    """d(p_i, p_j) between two patches, in widths of a patch."""
    return hypot(one // columns - other // columns, one % columns - other % columns)


def d_avg(attention_TT: np.ndarray, cls: int, columns: int) -> float:
    patches = len(attention_TT) - cls
    total = 0.0
    for i in range(patches):
        for j in range(patches):
            total += attention_TT[cls + i, cls + j] * distance(i, j, columns)
    return total / patches


def d_avg_patches(attention_TT: np.ndarray, cls: int, columns: int) -> float:
    scaled_TT = attention_TT.copy()
    scaled_TT[cls:, cls:] /= attention_TT[cls:, cls:].sum(-1, keepdims=True)
    return d_avg(scaled_TT, cls, columns)


def d_top1(attention_TT: np.ndarray, cls: int, columns: int) -> float:
    patches = len(attention_TT) - cls
    return sum(distance(i, int(attention_TT[cls + i, cls:].argmax()), columns) for i in range(patches)) / patches


def inflow(attention_TT: np.ndarray) -> list[int]:
    return [max(range(len(attention_TT)), key=lambda j: attention_TT[k, j]) for k in range(len(attention_TT))]


def outflow(attention_TT: np.ndarray) -> list[int]:
    return [max(range(len(attention_TT)), key=lambda i: attention_TT[i, k]) for k in range(len(attention_TT))]


def received(attention_TT: np.ndarray, cls: int) -> np.ndarray:
    """What each patch gives to the other patches, in even shares."""
    patches = len(attention_TT) - cls
    given = np.zeros(patches)
    for j in range(patches):
        for i in range(patches):
            if i != j:
                given[j] += attention_TT[cls + i, cls + j]
    return patches * given / given.sum()


def shares(ends: list[int], summary: np.ndarray, cls: int, columns: int) -> dict[str, float]:
    """Of the patches: those whose end is CLS, themselves, a summary token, a neighbour, or farther away."""
    counts = dict.fromkeys(("cls", "itself", "summary", "neighbour", "far"), 0)
    patches = len(ends) - cls
    for patch in range(patches):
        end = ends[cls + patch] - cls
        if end < 0:
            counts["cls"] += 1
        elif end == patch:
            counts["itself"] += 1
        elif summary[end]:
            counts["summary"] += 1
        elif distance(patch, end, columns) <= 1.5:
            counts["neighbour"] += 1
        else:
            counts["far"] += 1
    return {kind: count / patches for kind, count in counts.items()}


def cosine(one_D: np.ndarray, other_D: np.ndarray) -> float:
    one_D, other_D = one_D.astype(np.float64), other_D.astype(np.float64)
    return float(one_D @ other_D / (np.sqrt(one_D @ one_D) * np.sqrt(other_D @ other_D)))
