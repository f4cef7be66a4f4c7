"""The scan on the target grid: field of view, what was recorded, and the way back to its axes."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from monai_diffens.transforms.input_gate import InputRejected
from monai_diffens.transforms.target_grid import RestoreToSpacingd, ToSourceAxesd
from monai_diffens.transforms.thick_slices import measurement_from_meta


def scan(shape, spacing, offset=(10.0, -20.0, 30.0)) -> MetaTensor:
    """A random RAS scan above zero."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = offset
    return MetaTensor(torch.rand(1, *shape) + 1, affine=affine, meta={"filename_or_obj": "/x/a.nii.gz"})


def centre(volume: MetaTensor) -> np.ndarray:
    return nib.affines.apply_affine(np.asarray(volume.affine), (np.array(volume.shape[1:]) - 1) / 2)


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((20, 22, 8), (1, 1, 5), (20, 22, 40)),
        ((21, 9, 20), (1, 4.4, 1), (21, 40, 20)),
        ((7, 8, 9), (4, 4, 4), (28, 32, 36)),
        ((40, 40, 8), (0.5, 0.5, 3), (20, 20, 24)),
        ((20, 22, 8), (0.98, 1.03, 5), (20, 22, 40)),
    ],
)
def test_field_of_view_and_measurement(shape, spacing, expected):
    low = scan(shape, spacing)
    high = RestoreToSpacingd("image")({"image": low})["image"]
    assert tuple(high.shape[1:]) == expected
    np.testing.assert_allclose(centre(high), centre(low), atol=1e-6)
    zooms = nib.affines.voxel_sizes(np.asarray(high.affine))
    np.testing.assert_allclose(zooms, [s if abs(s - 1) < 0.05 else 1 for s in spacing], atol=1e-9)
    measurement = measurement_from_meta(high.shape[1:], high.meta)
    assert [axis is None for axis in measurement.axes] == [s < 1.05 for s in spacing]
    if min(spacing) > 0.95:  # no axis was averaged down
        torch.testing.assert_close(
            measurement(high).as_tensor(), low.as_tensor(), atol=1e-3, rtol=0, check_dtype=False
        )


def test_slice_thickness_is_of_the_thickest_axis_alone():
    high = RestoreToSpacingd("image", slice_thickness=4)({"image": scan((20, 20, 8), (1.2, 1, 5))})["image"]
    measurement = measurement_from_meta(high.shape[1:], high.meta)
    assert measurement.axes[0].thickness == pytest.approx(1.2)
    assert measurement.axes[2].thickness == 4 and measurement.axes[2].factor == 5


def test_row_18_thick_slices_are_told_once_or_rejected(caplog):
    restore, data = RestoreToSpacingd("image"), {"image": scan((8, 8, 4), (1, 1, 7))}
    restore(data)
    assert len(caplog.records) == 1 and "a.nii.gz: slices 7 mm apart" in caplog.text
    line = caplog.records[0].message.removeprefix("a.nii.gz: ")
    restore({**data, "warnings": [line]})  # CaseFolder has told it
    assert len(caplog.records) == 1
    with pytest.raises(InputRejected, match="slices 11 mm apart are 11 target voxels"):
        restore({"image": scan((8, 8, 4), (1, 1, 11))})
    with pytest.raises(InputRejected, match="target_spacing"):
        RestoreToSpacingd("image", spacing=0)


def test_back_to_the_axes_of_the_source():
    source = scan((5, 6, 7), (1, 2, 3))
    turned = Orientation("PIR", labels=None)(source)
    image = Orientation("RAS", labels=None)(turned.clone())
    image.meta["original_affine"] = np.asarray(turned.affine)
    back = ToSourceAxesd("pred")({"pred": image.clone(), "image": image})["pred"]
    np.testing.assert_allclose(np.asarray(back.affine), np.asarray(turned.affine), atol=1e-9)
    torch.testing.assert_close(back.as_tensor(), turned.as_tensor())
