"""Pi3X's heads against numbers of the reference network.

The expected numbers were made once by running the heads of yyfz/Pi3 (``Pi3X.forward_head`` and what it calls: pi3x.py at
11e5fa3, conv_head.py at 5583110) at tiny sizes, in float32 on one CPU thread, on weights and tokens that the formula below
gives; nothing of that code is here. Pi3X's encoder and decoder are Pi3's, which tests/parity compares with golden data.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.teachers.pi3.config import TINY
from pipeline.teachers.pi3.heads import poses_of
from pipeline.teachers.pi3.model import Pi3X

CONFIG = dataclasses.replace(TINY, head_depth=2, upsample=(32, 32, 16))
VIEWS, GRID = 2, (2, 3)
TRUNK = ("encoder.", "decoder.", "register_token", "image_")


def mixed(shape: tuple[int, ...], key: int) -> Tensor:
    """Numbers in [-1, 1) in no order, from their index alone: the same in any library and on any machine."""
    x = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(1 + 1_000_003 * key)
    for _ in range(2):
        x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return torch.from_numpy((x >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0).view(shape).float()


def weights(network: torch.nn.Module) -> dict[str, Tensor]:
    """Weights of the heads: the n-th name in alphabetical order gets the n-th sequence."""
    names = sorted(name for name in network.state_dict() if not name.startswith(TRUNK))
    state = {}
    for key, name in enumerate(names):
        shape = tuple(network.state_dict()[name].shape)
        values = mixed(shape, key)
        if name == "metric_token":
            state[name] = values
        elif len(shape) > 1:
            state[name] = values * math.sqrt(3.0 / math.prod(shape[1:]))
        else:
            state[name] = 0.3 * values + (1.0 if name.endswith("weight") else 0.0)
    return state


@pytest.fixture(scope="module")
def network() -> Pi3X:
    made = Pi3X(CONFIG).eval()
    missing, unexpected = made.load_state_dict(weights(made), strict=False)
    assert not unexpected
    assert all(name.startswith(TRUNK) for name in missing)
    return made


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return 1.7 * mixed((1, VIEWS, CONFIG.registers + math.prod(GRID), CONFIG.dim), 999)


def close(actual: Tensor, expected: list[float], what: str) -> None:
    target = torch.tensor(expected).view(actual.shape)
    error = (actual - target).abs().max() / target.abs().max()
    assert error <= 2e-5, f"{what}: relative to the largest value the error is {error:.2e}"


# fmt: off
EXPECTED: dict[str, list[float]] = {
    "metric": [
        84.59933,
    ],
    "depth": [
        200.6374, 211.267, 199.4739, 249.2035, 298.2181, 276.0516, 218.5481, 246.4604, 184.3544, 193.3007, 181.1163,
        201.8624,
    ],
    "confidence": [
        0.3247032, 0.3860319, 0.4130984, 0.3410087, 0.359922, 0.3852305, 0.3307707, 0.3921498, 0.3917952, 0.3303478,
        0.3536659, 0.3749583,
    ],
    "poses": [
        0.6684145, -0.06415743, 0.7410166, -54.44961, -0.5901118, 0.5607064, 0.5808412, 46.52423, -0.4527581,
        -0.8255254, 0.3369242, 28.62095, 0.8860726, 0.4365582, -0.1558608, -10.63737, 0.1194347, 0.1098748, 0.9867437,
        -25.87419, 0.4478961, -0.8929417, 0.0452171, 9.336911,
    ],
    "depth_map": [
        1.493327, 1.676902, 2.474619, 4.833612, 0.9297333, 2.024759, 3.717423, 0.8991783, 2.359087, 3.304846,
        3.335155, 2.127267, 1.90015, 2.446978, 14.23834, 3.889673, 3.149477, 2.263694, 3.706613, 1.572732, 2.488821,
        1.40242, 1.956266, 1.508565, 1.871547, 2.172008, 1.406319, 2.017175, 1.751284, 1.68637, 4.940248, 1.310994,
    ],
    "logit_map": [
        -1.057053, -0.6038637, -1.266048, -0.2496297, -0.8035691, -0.7894809, -1.049952, -0.09511454, -0.8133286,
        -0.761763, -0.9047011, -0.2088106, -0.7662634, -0.761929, -1.145949, -0.1608576, -0.9950119, -0.6973165,
        -0.8217529, -0.2496297, -0.7047219, -0.1480448, -0.3919521, -0.2659157, -0.4819219, -0.4191837, -0.27947,
        -0.2414631, -1.754191, -0.9872677, -1.255682, -0.2542253,
    ],
}
# fmt: on


@torch.no_grad()
def test_predictions_are_the_references(network: Pi3X, tokens: Tensor) -> None:
    said = network.predict(tokens, GRID)
    close(network.metric(tokens, GRID), EXPECTED["metric"], "scale in metres")
    close(said.depth, EXPECTED["depth"], "mean depth of a token")
    close(said.confidence, EXPECTED["confidence"], "mean confidence of a token")
    close(poses_of(said.camera)[0, :, :3], EXPECTED["poses"], "camera poses")


@torch.no_grad()
def test_maps_are_the_references(network: Pi3X, tokens: Tensor) -> None:
    """Single pixels at corners, edges and inside, where padding and resampling differ."""
    depth, logits = network.maps(tokens[0], GRID)
    close(depth[:, 0, ::9, ::13], EXPECTED["depth_map"], "depth map in the unit of length")
    close(logits[:, 0, ::9, ::13], EXPECTED["logit_map"], "confidence logits")
