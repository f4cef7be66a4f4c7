"""Intensity scaling: a percentile of the foreground becomes 1, and the way back is exact."""

import pytest
import torch
from monai.data import MetaTensor
from monai.data.utils import list_data_collate

from monai_diffens.transforms.intensity import (
    SCALE_KEY,
    RestoreIntensityd,
    ScaleForegroundPercentiled,
    foreground_percentile,
)


def scan(scale: float = 37.0) -> MetaTensor:
    """A volume (1, X, Y, Z) in arbitrary units, half of it empty."""
    volume = scale * torch.rand(1, 10, 12, 8)
    volume[:, :5] = 0
    return MetaTensor(volume, meta={"filename_or_obj": "scan.nii"})


@pytest.mark.parametrize(
    ("percentile", "expected"), [(0, 1), (0.1, 1), (10, 20), (50, 100), (99.5, 199), (100, 200)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
def test_percentile_counts_voxels_above_zero_alone(percentile, expected, dtype):
    values = torch.arange(1, 201)[torch.randperm(200)].to(dtype)
    empty = torch.zeros(5000, dtype=dtype)
    image = torch.cat([values, empty, -values]).reshape(1, 20, 27, 10)
    assert foreground_percentile(image, percentile) == expected


@pytest.mark.parametrize("image", [torch.zeros(1, 4, 4, 4), -torch.rand(1, 4, 4, 4), torch.zeros(1, 0, 4, 4)])
def test_volume_without_foreground_is_an_error(image):
    with pytest.raises(ValueError, match="no voxel above zero"):
        foreground_percentile(image)
    with pytest.raises(ValueError, match="no voxel above zero"):
        ScaleForegroundPercentiled("image")({"image": image})


@pytest.mark.parametrize("scale", [1e-3, 1.0, 4095.0])
def test_scaled_volumes_of_any_unit_are_alike(scale):
    generator_state = torch.get_rng_state()
    unit = ScaleForegroundPercentiled("image")({"image": scan(1.0)})["image"]
    torch.set_rng_state(generator_state)
    scaled = ScaleForegroundPercentiled("image")({"image": scan(scale)})["image"]
    torch.testing.assert_close(scaled.as_tensor(), unit.as_tensor(), rtol=1e-5, atol=0)
    assert foreground_percentile(scaled) == pytest.approx(1, rel=1e-6)
    assert 1 <= scaled.max() < 1.1
    assert (scaled[:, :5] == 0).all()


def test_divisor_is_kept_in_meta_and_the_input_is_left_as_it_was():
    volume = scan()
    before = volume.as_tensor().clone()
    result = ScaleForegroundPercentiled("image", percentile=90)({"image": volume})["image"]
    assert result.meta[SCALE_KEY] == foreground_percentile(before, 90)
    assert result.meta["filename_or_obj"] == "scan.nii"
    assert SCALE_KEY not in volume.meta and torch.equal(volume.as_tensor(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16])
def test_restoring_undoes_scaling(dtype):
    volume = MetaTensor(scan(1000.0).as_tensor().to(dtype))
    scaled = ScaleForegroundPercentiled("image")({"image": volume})
    assert scaled["image"].is_floating_point()
    restored = RestoreIntensityd("image", source_key="image")(scaled)["image"]
    torch.testing.assert_close(restored.as_tensor(), volume.as_tensor().to(restored.dtype), rtol=3e-7, atol=0)


@pytest.mark.parametrize("kind", [MetaTensor, torch.Tensor])
@pytest.mark.parametrize("batched", [False, True], ids=["item", "batch"])
def test_prediction_returns_in_the_units_of_its_source(kind, batched):
    data = ScaleForegroundPercentiled("image")({"image": scan()})
    scale = data["image"].meta[SCALE_KEY]
    if batched:
        data = list_data_collate([data])
    prediction = torch.rand(1, 10, 12, 8)
    data["pred"] = MetaTensor(prediction) if kind is MetaTensor else prediction
    restored = RestoreIntensityd("pred")(data)["pred"]
    assert isinstance(restored, kind)
    torch.testing.assert_close(torch.as_tensor(restored), prediction * scale, rtol=1e-6, atol=0)


def test_every_key_has_its_own_divisor():
    data = {"image": scan(10.0), "label": scan(500.0), "name": "x"}
    result = ScaleForegroundPercentiled(["image", "label"])(data)
    assert result["name"] == "x"
    for key in ("image", "label"):
        assert result[key].meta[SCALE_KEY] == foreground_percentile(data[key])


@pytest.mark.parametrize("transform", [ScaleForegroundPercentiled("a"), RestoreIntensityd("a")])
def test_absent_key_is_an_error_unless_allowed(transform):
    data = ScaleForegroundPercentiled("image")({"image": scan()})
    with pytest.raises(KeyError, match="a"):
        transform(data)
    transform.allow_missing_keys = True
    assert set(transform(data)) == {"image"}
