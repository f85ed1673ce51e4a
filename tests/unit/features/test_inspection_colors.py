"""Principal components, their alignment to the world, and colours."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.features.inspect.colors import alignment, principal_basis, standardised, to_colors


def projected(tokens: np.ndarray) -> np.ndarray:
    mean, basis = principal_basis(tokens)
    return (tokens - mean) @ basis


def test_components_are_uncorrelated_ordered_and_have_deterministic_signs() -> None:
    random = np.random.default_rng(0)
    tokens = (random.normal(size=(500, 20)) * np.geomspace(10, 0.1, 20)).astype(np.float32)
    found = projected(tokens)
    np.testing.assert_allclose(found.T @ found / len(found), np.eye(3), atol=1e-4)
    basis = principal_basis(tokens)[1]
    variances = 1 / np.linalg.norm(basis, axis=0) ** 2
    assert (np.diff(variances) < 0).all()
    reference = np.linalg.svd(tokens - tokens.mean(0), full_matrices=False)[2][:3]
    np.testing.assert_allclose(np.abs(basis.T @ reference.T) * np.sqrt(variances)[:, None], np.eye(3), atol=1e-2)
    assert (basis[np.abs(basis).argmax(0), range(3)] > 0).all()
    np.testing.assert_allclose(projected(tokens[::-1])[::-1], found, atol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_few_or_constant_dimensions(width: int) -> None:
    tokens = np.random.default_rng(1).normal(size=(50, width)).astype(np.float32)
    assert np.isfinite(projected(tokens)).all()
    assert projected(tokens).shape == (50, 3)
    np.testing.assert_array_equal(projected(np.ones((10, width), dtype=np.float32)), 0.0)


def test_teachers_with_the_same_knowledge_get_the_same_colors() -> None:
    """Two teachers see the room in different random bases: without alignment colours differ, with it they agree."""
    random = np.random.default_rng(2)
    points = random.uniform([0, 0, 0], [4, 5, 2.5], size=(800, 3))
    valid = random.random(800) > 0.2
    world = standardised(points, valid)
    turned, plain = [], []
    for _ in range(2):
        mixed = (points @ random.normal(size=(3, 64)) + random.normal(0, 0.02, (800, 64))).astype(np.float32)
        components = projected(mixed)
        plain.append(to_colors(components))
        turned.append(to_colors(components @ alignment(components, world, valid)))
    assert np.abs(turned[0] - turned[1]).mean() < np.abs(plain[0] - plain[1]).mean() / 5
    assert np.abs(turned[0] - turned[1]).mean() < 0.02
    assert np.abs(turned[0] - to_colors(world))[valid].mean() < 0.1


def test_alignment_is_orthogonal_and_needs_places() -> None:
    random = np.random.default_rng(3)
    components, world, valid = random.normal(size=(60, 3)), random.normal(size=(60, 3)), np.ones(60, dtype=bool)
    rotation = alignment(components, world, valid)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    best = np.linalg.norm(components @ rotation - world)
    for _ in range(50):
        other = np.linalg.qr(random.normal(size=(3, 3)))[0]
        assert best <= np.linalg.norm(components @ other - world) + 1e-9
    np.testing.assert_array_equal(alignment(components, world, np.arange(60) < 3), np.eye(3))


def test_colors_have_one_scale_and_grey_for_unknown() -> None:
    values = np.random.default_rng(4).normal(size=(2, 5, 6, 3))
    valid = np.ones((2, 5, 6), dtype=bool)
    valid[0, 0, 0] = False
    colors = to_colors(values, valid)
    assert colors.min() >= 0
    assert colors.max() <= 1
    np.testing.assert_array_equal(colors[0, 0, 0], 0.5)
    for channel in range(3):  # one scale for all views: colours follow the values over both
        order = np.argsort(values[valid][:, channel])
        assert (np.diff(colors[valid][order, channel]) >= 0).all()
    np.testing.assert_array_equal(to_colors(np.ones((4, 3))), 0.5)
