import numpy as np
import pytest
import torch

from pipeline.scenes.grid import TokenGrid, adaptive_matrix, overlap_matrix, resample_tokens


def test_adaptive_equals_torch_adaptive_average_pooling():
    tokens = torch.randn(2, 28, 37, 5)
    ours = resample_tokens(tokens, TokenGrid(28, 37), TokenGrid(14, 14), "adaptive")
    theirs = torch.nn.functional.adaptive_avg_pool2d(tokens.permute(0, 3, 1, 2), (14, 14)).permute(0, 2, 3, 1)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_area_equals_block_mean_for_whole_ratios():
    tokens = torch.randn(3, 8, 12, 4)
    ours = resample_tokens(tokens, TokenGrid(8, 12), TokenGrid(4, 4), "area")
    blocks = tokens.reshape(3, 4, 2, 4, 3, 4).mean((2, 4))
    torch.testing.assert_close(ours, blocks, atol=1e-6, rtol=0)


def test_area_reproduces_a_linear_ramp_at_cell_centres_across_windows():
    source = TokenGrid(40, 40)
    target = TokenGrid(4, 4, (0.0, 0.0, 0.8, 0.8))
    centres = (source.col_edges()[:-1] + source.col_edges()[1:]) / 2
    ramp = torch.tensor(centres, dtype=torch.float32).expand(40, 40).unsqueeze(-1)
    got = resample_tokens(ramp, source, target)[..., 0]
    want = torch.tensor([0.1, 0.3, 0.5, 0.7])
    torch.testing.assert_close(got, want.expand(4, 4), atol=1e-6, rtol=0)


def test_weights_sum_to_one_and_to_zero_where_the_source_ends():
    weights = overlap_matrix(np.linspace(0, 1, 5), np.linspace(0.5, 1.0, 3))
    np.testing.assert_allclose(weights, [[0, 0], [0, 0], [1, 0], [0, 1]])
    np.testing.assert_allclose(adaptive_matrix(14, 37).sum(1), 1.0)


def test_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="2x3"):
        resample_tokens(torch.zeros(1, 3, 2, 4), TokenGrid(2, 3), TokenGrid(1, 1))
