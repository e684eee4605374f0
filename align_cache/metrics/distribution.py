"""How embeddings are spread: per dimension, over directions, and between the modalities."""

from __future__ import annotations

import math

import torch

from align_cache.errors import ShapeError
from align_cache.metrics.arrays import Array, as_rows, exact
from align_cache.metrics.centred import Centred, cross_product, varying


@exact
def variance_difference(z: Array, r: Array) -> float:
    """Mean distance of the per-dimension variances of two representations, in units of the isotropic one.

    Parameters
    ----------
    z, r : float array, shape (n, dim) and (m, dim)
        Embeddings and reference, unit-norm rows; the rows need not be the same items.

    Returns
    -------
    float >= 0: mean over d of |dim·Var(z_d) − dim·Var(r_d)|, population variances. dim·Var = 1 in every
    dimension is the isotropic distribution.

    Raises
    ------
    ShapeError
        Fewer than two rows, or other dimensions: then there is no dimension to compare with which.
    NonFiniteError
    """
    first, second = as_rows(z, "z", min_rows=2), as_rows(r, "r", min_rows=2)
    if first.dim != second.dim:
        raise ShapeError(
            f"z has {first.dim} dimensions and r {second.dim}; variances are compared one by one"
        )
    difference = Centred(first).variances() - Centred(second).variances()
    return float(first.dim * difference.abs().mean())


@exact
def effective_rank(x: Array) -> float:
    """Count the directions that the variance is effectively spread over.

    Parameters
    ----------
    x : float array, shape (n, dim)

    Returns
    -------
    float in [1, min(n - 1, dim)]: exp of the entropy of λ / Σλ, λ the eigenvalues of the covariance.

    Raises
    ------
    ShapeError, NonFiniteError
        The latter also for rows that do not vary, which have no directions.
    """
    centred = varying(as_rows(x, "x", min_rows=2))
    eigenvalues = torch.linalg.eigvalsh(cross_product(centred, centred)).clamp(min=0)
    share = eigenvalues / eigenvalues.sum()
    return math.exp(float(-torch.special.xlogy(share, share).sum()))


@exact
def uniformity(x: Array, *, block_rows: int = 1024) -> float:
    """Log of the mean Gaussian potential between different rows.

    Parameters
    ----------
    x : float array, shape (n, dim)
        Unit-norm rows.
    block_rows : int
        Rows compared with all others at once.

    Returns
    -------
    float <= 0: log mean_{i≠j} exp(−2‖x_i − x_j‖²). 0 where all rows are one point; about −4 for uniform
    directions in many dimensions.

    Raises
    ------
    ShapeError, NonFiniteError

    Cost O(n² dim) time, O(block_rows · n) memory.
    """
    rows = as_rows(x, "x", min_rows=2)
    matrix = rows.all()
    squared = matrix.square().sum(dim=1)
    total = 0.0
    for start, stop in rows.spans(block_rows):
        distance = squared[start:stop, None] + squared[None, :] - 2 * (matrix[start:stop] @ matrix.T)
        distance = distance.clamp_(min=0)
        distance[:, start:stop].fill_diagonal_(torch.inf)  # a row is not its own neighbour: adds exp(-inf)
        total += float(distance.mul_(-2).exp_().sum(dim=1).cpu().double().sum())
    return math.log(total / (rows.n * (rows.n - 1)))


@exact
def modality_gap(image_embeddings: Array, text_embeddings: Array) -> float:
    """Distance between the mean image embedding and the mean text embedding.

    Parameters
    ----------
    image_embeddings, text_embeddings : float array, shape (n, dim) and (m, dim)
        Unit-norm rows.

    Returns
    -------
    float in [0, 2].

    Raises
    ------
    ShapeError, NonFiniteError
    """
    images, texts = as_rows(image_embeddings, "image_embeddings"), as_rows(text_embeddings, "text_embeddings")
    if images.dim != texts.dim:
        raise ShapeError(f"image_embeddings have {images.dim} dimensions and text_embeddings {texts.dim}")
    return float(torch.linalg.vector_norm(images.mean() - texts.mean()))


@exact
def mean_norm(x: Array) -> float:
    """Mean length of the rows, to be read before they are normalised; x is a float array (n, dim)."""
    rows = as_rows(x, "x")
    blocks = (rows.block(start, stop) for start, stop in rows.spans())
    return (
        sum(float(torch.linalg.vector_norm(block, dim=1).cpu().double().sum()) for block in blocks) / rows.n
    )
