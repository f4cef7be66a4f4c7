"""Channels of an inferer, taken apart by name."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.transforms.describe import SplitMapsd


def test_each_channel_gets_its_name_and_place():
    volumes = MetaTensor(torch.rand(3, 4, 5, 6), affine=np.diag([1, 2, 3, 1.0]), meta={"case": "a"})
    data = SplitMapsd("pred", ["std", "weight-axial"])({"pred": volumes, "image": 1})
    assert set(data) == {"pred", "pred_std", "pred_weight-axial", "image"}
    for index, key in enumerate(("pred", "pred_std", "pred_weight-axial")):
        assert torch.equal(data[key].as_tensor(), volumes.as_tensor()[index : index + 1])
        assert torch.equal(data[key].affine, volumes.affine) and data[key].meta["case"] == "a"


def test_without_maps_there_is_the_result_alone():
    data = SplitMapsd("pred")({"pred": torch.ones(1, 4, 5, 6)})
    assert set(data) == {"pred"} and data["pred"].shape == (1, 4, 5, 6)


def test_another_number_of_channels():
    with pytest.raises(ValueError, match=r"pred: 2 channels are needed \(the result, then std\), got 1"):
        SplitMapsd("pred", ["std"])({"pred": torch.ones(1, 4, 5, 6)})
    with pytest.raises(ValueError, match=r"1 channels are needed \(the result, then no map\), got 3"):
        SplitMapsd("pred")({"pred": torch.ones(3, 4, 5, 6)})
    with pytest.raises(KeyError):
        SplitMapsd("pred")({})
    assert SplitMapsd("pred", allow_missing_keys=True)({}) == {}
