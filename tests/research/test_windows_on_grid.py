"""Windows of a volume that begin on the patch grid."""

import pytest
import torch

from monai_diffens.acquisition.slicing import PATCH_GRID
from research.baselines.regression_inferer import on_patch_grid


@pytest.mark.parametrize("shape", [(7, 16, 40), (33, 21, 45)])
def test_windows_begin_on_the_grid_and_give_the_whole(shape):
    places = torch.stack(torch.meshgrid(*(torch.arange(1.0, n + 1) for n in shape), indexing="ij"))[None]
    begins = []

    def network(window: torch.Tensor) -> torch.Tensor:
        assert window.shape[2:] == (16, 16, 16)
        begins.append((window[0, :, 0, 0, 0] - 1).tolist())
        return window[:, :2] * 2

    result = on_patch_grid(places, network, 16)
    assert result.shape == (1, 2, *shape) and torch.allclose(result, 2 * places[:, :2], rtol=1e-5)
    assert all(place % PATCH_GRID == 0 for begin in begins for place in begin) and len(begins) > 2


def test_windows_that_leave_the_grid_are_refused():
    for window, overlap in ((20, 0.5), (16, 0.25)):
        with pytest.raises(ValueError, match="leaves the grid of 8 voxels"):
            on_patch_grid(torch.zeros(1, 1, 24, 24, 24), lambda window: window, window, overlap)
