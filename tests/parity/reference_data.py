"""Numbers of the reference code that the parity tests compare with: the project's own vectors, and whole runs where they are.

``vectors/`` is part of the project; its README says what it holds. The runs it was taken from (``$PIPELINE_SHARED/golden``) are
larger and are read too where they are present. Both have the same layout, so that one test reads either.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate

SHARED = Path(os.environ.get("PIPELINE_SHARED", Path(__file__).parents[3] / "shared"))
GOLDEN, VECTORS = SHARED / "golden", Path(__file__).parent / "vectors"
SAMPLES = 256
"""Numbers that a vector keeps of every output; a smaller output is kept whole."""
IMAGE_SEED = 500
"""What the reference runs add to a case's seed to draw its images."""


def cases(pattern: str, *, again: bool = False) -> list[Any]:
    """Return one test parameter per path that fits ``pattern`` among the vectors and the reference runs.

    A path that both have is taken from the vectors alone (they hold a copy), or from both with ``again``.
    """
    found = {path.relative_to(VECTORS): path for path in sorted(VECTORS.glob(pattern))}
    assert found, f"no vector {pattern}"
    ours = [pytest.param(path, id=path.stem) for path in found.values()]
    runs = [path for path in sorted(GOLDEN.glob(pattern)) if again or path.relative_to(GOLDEN) not in found]
    return ours + [pytest.param(path, id=f"{path.stem}-whole") for path in runs]


def read_json(name: str) -> Any:
    """Return the content of a JSON file of the reference runs, of which the vectors hold a packed copy."""
    content = json.loads(gzip.decompress((VECTORS / f"{name}.gz").read_bytes()))
    if (GOLDEN / name).is_file():
        assert content == json.loads((GOLDEN / name).read_text()), f"vectors/{name}.gz differs: run make_vectors.py"
    return content


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and metadata of a safetensors file; one that make_vectors.py wrote has its metadata under ``facts``."""
    with safe_open(path, "pt") as stream:
        metadata = stream.metadata() or {}
        facts = json.loads(metadata["facts"]) if "facts" in metadata else metadata
        return {key: stream.get_tensor(key) for key in stream.keys()}, facts  # noqa: SIM118


def places(count: int) -> Tensor:
    """Return the positions (SAMPLES,) among ``count`` numbers that a vector keeps, the same on every machine."""
    if count <= SAMPLES:
        return torch.arange(count)
    return torch.from_numpy(np.random.RandomState(count).randint(0, count, SAMPLES))


def close(actual: Tensor | None, expected: Tensor, what: str, tolerance: float = 2e-5) -> None:
    """Fail where the largest difference exceeds ``tolerance`` times the largest expected value."""
    assert actual is not None, what
    assert actual.shape == expected.shape, what
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"{what}: relative to the largest value the error is {error:.2e}"


def seeded_weights(shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Draw the weights of a reference run anew: normal numbers in alphabetical order of names, scaled by kind of weight.

    ``config`` holds the seed, ``drawn_before`` (name -> how many random words went into modules that are not here) and
    ``scaled`` (pattern of names -> factor) of the case.
    """
    generator, weights = torch.Generator().manual_seed(config["seed"]), {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        torch.rand(config["drawn_before"].get(name, 0), generator=generator)
        drawn = torch.randn(shape, generator=generator)
        if name.endswith("gamma"):
            drawn = 0.5 + 0.2 * drawn
        elif name.endswith("bias"):
            drawn = 0.1 * drawn
        elif len(shape) == 1:
            drawn = 1 + 0.3 * drawn
        elif len(shape) == 2 or name.endswith("weight"):
            drawn = drawn / math.sqrt(math.prod(shape[1:]))
        else:
            drawn = 0.5 * drawn
        weights[name] = drawn * math.prod(factor for pattern, factor in config["scaled"].items() if re.search(pattern, name))
    return weights


def seeded_images(config: Mapping[str, Any]) -> Tensor:
    """Draw the images (B,V,3,H,W) of a reference run anew: a coarse random picture and a quarter of noise, in [0,1]."""
    generator = torch.Generator().manual_seed(config["seed"] + IMAGE_SEED)
    (batch, views), (height, width) = (config["batch"], config["views"]), (config["height"], config["width"])
    coarse = torch.rand(batch * views, 3, height // 14, width // 14, generator=generator)
    smooth = interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return 0.75 * smooth.view(batch, views, 3, height, width) + 0.25 * torch.rand(
        batch, views, 3, height, width, generator=generator
    )


@dataclass(frozen=True)
class Run:
    """A run of a reference network at a tiny width: its sizes, images and weights, and what it gave.

    A vector draws images and weights from the seed and holds samples of the outputs; a whole run holds every number.
    """

    folder: Path
    tolerance: float = 2e-5

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / "config.json").read_text())

    @property
    def whole(self) -> bool:
        return not (self.folder / "outputs.safetensors").exists()

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return {name: value for path in self.folder.glob("*.safetensors") for name, value in load_file(path).items()}

    @cached_property
    def images(self) -> Tensor:
        return self.tensors["input/images"] if self.whole else seeded_images(self.config)

    def weights(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """Return the weights of the run. ``shapes``: those of the network, read where the weights are drawn."""
        prefix = "weights/"
        kept = {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}
        if self.whole:
            return kept
        drawn = seeded_weights(shapes, self.config)
        total = sum(value.double().abs().sum().item() for value in drawn.values())
        assert total == pytest.approx(self.config["weights_sum"], rel=1e-6), (
            "other weights were drawn than in the reference run"
        )
        return drawn | kept

    @property
    def outputs(self) -> set[str]:
        """Names of all outputs of the run."""
        return {name.removeprefix("output/") for name in self.tensors if name.startswith("output/")}

    def output(self, name: str) -> Tensor:
        """Return an output whole; of a vector, one of SAMPLES numbers or fewer."""
        found = self.tensors[f"output/{name}"]
        return found if self.whole else found.view(self._facts[name][0])

    @cached_property
    def _facts(self) -> dict[str, tuple[tuple[int, ...], float, float]]:
        """Shape, largest and mean absolute value of each output that the vector holds samples of."""
        _, facts = read_tensors(self.folder / "outputs.safetensors")
        return {name: (tuple(shape), largest, mean) for name, (shape, largest, mean) in facts.items()}

    def check(self, name: str, value: Tensor) -> None:
        """Fail where ``value`` differs from the reference's output by more than the tolerance times its largest number."""
        if self.whole:
            close(value, self.output(name), name, self.tolerance)
            return
        shape, largest, mean = self._facts[name]
        assert tuple(value.shape) == shape, name
        flat = value.flatten()
        error = (flat[places(len(flat))] - self.tensors[f"output/{name}"]).abs().max().item() / largest
        shift = abs(flat.double().abs().mean().item() - mean) / largest
        assert max(error, shift) <= self.tolerance, f"{name}: error {error:.2e} of the largest value, of the mean {shift:.2e}"


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """Return the formula picture of the files preprocess.json, uint8 (H,W,3)."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    return ((x * (3 + c) + y * (5 + 2 * c) + (((x // 7) * (y // 5)) % 97) + seed * 31) // 2 % 256).astype(np.uint8)
