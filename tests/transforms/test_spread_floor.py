"""A floor under the spread: by the detail that thick slices may have hidden."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.transforms.describe import SIDE, FloorSpreadd, unseen_detail
from monai_diffens.transforms.thick_slices import thick_slice


def scan(factors=(1, 1, 4)) -> MetaTensor:
    """A thick-sliced noise volume: its meta tells how it was sliced."""
    volume = MetaTensor(torch.rand(1, 16, 16, 16, generator=torch.Generator().manual_seed(0)))
    return thick_slice(volume, factors)


def test_unseen_detail_is_the_local_deviation_for_one_thick_axis():
    result = torch.rand(1, 16, 16, 16)
    around = result[0, 3 : 3 + SIDE, 4 : 4 + SIDE, 5 : 5 + SIDE].numpy()
    found = unseen_detail(result, scan().meta)
    assert found.shape == result.shape
    assert found[0, 5, 6, 7] == pytest.approx(np.std(around), rel=1e-3)
    corner = result[0, :3, :3, :3].numpy()  # what lies outside of the volume does not count
    assert found[0, 0, 0, 0] == pytest.approx(np.std(corner), rel=1e-3)


@pytest.mark.parametrize(("factors", "axes"), [((4, 4, 4), 3), ((1, 5, 5), 2), ((1, 1, 1), 0)])
def test_more_thick_axes_hide_more(factors, axes):
    result = torch.rand(1, 16, 16, 16)
    torch.testing.assert_close(
        unseen_detail(result, scan(factors).meta), axes**0.5 * unseen_detail(result, scan().meta)
    )


def test_nothing_is_hidden_where_the_image_is_flat_or_nothing_is_known():
    assert unseen_detail(torch.full((1, 8, 8, 8), 0.7), scan().meta).max() < 2e-3  # rounding of the squares
    assert not unseen_detail(torch.rand(1, 8, 8, 8), {}).any()


def test_the_floor_is_added_in_squares():
    image = scan()
    spread = MetaTensor(torch.full((1, 16, 16, 16), 0.03), affine=np.diag([1, 1, 1, 1.0]))
    data = {"pred": torch.rand(1, 16, 16, 16), "pred_std": spread, "image": image}
    raised = FloorSpreadd("pred_std", floor=0.6)(data)["pred_std"]
    expected = (0.03**2 + 0.36 * unseen_detail(data["pred"], image.meta) ** 2).sqrt()
    torch.testing.assert_close(raised.as_tensor(), expected)
    assert isinstance(raised, MetaTensor)
    assert FloorSpreadd("pred_std", floor=0.0)(data)["pred_std"] is spread
    assert "pred_std" not in FloorSpreadd("pred_std", floor=0.6, allow_missing_keys=True)({"image": image})
    for wrong in ({"floor": -1}, {"unmeasured_floor": -1}):
        with pytest.raises(ValueError, match="spread_floor must be 0 or more, got -1"):
            FloorSpreadd("pred_std", **wrong)


def test_a_contrast_without_a_scan_has_a_floor_of_its_own():
    """No axis was measured: all three count, and the factor is another one; nothing is told of outside."""
    image = MetaTensor(
        (torch.arange(16.0) > 3).expand(2, 16, 16, 16) * torch.tensor([0.0, 1])[:, None, None, None]
    )
    data = {"pred": torch.rand(1, 16, 16, 16), "pred_std": torch.zeros(1, 16, 16, 16), "image": image}
    raised = FloorSpreadd("pred_std", floor=0.6, unmeasured_floor=2.0)(data)["pred_std"]
    expected = 2 * 3**0.5 * unseen_detail(data["pred"], scan().meta)
    torch.testing.assert_close(raised, expected)
    inside = FloorSpreadd("pred_std", unmeasured_floor=2.0, inside_only=True)(data)["pred_std"]
    assert not inside[..., :4].any()
    torch.testing.assert_close(inside[..., 4:], expected[..., 4:])
    assert not FloorSpreadd("pred_std", floor=0.6)(data)["pred_std"].any()
