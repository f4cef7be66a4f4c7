"""The scan on the target grid: field of view, what was recorded, and the way back to its axes."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Orientation, Orientationd

from monai_diffens.messages import InputRejected
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


def turned(axcodes: str, spacing, degrees: float = 0.0) -> np.ndarray:
    """Affine of axes in the order and direction of ``axcodes``, rotated about an oblique axis."""
    base = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(axcodes)), (1, 1, 1)) @ np.diag(
        [*spacing, 1.0]
    )
    half = np.radians(degrees) / 2
    rotation = nib.quaternions.quat2mat([np.cos(half), *(np.sin(half) * np.array([2, -1, 2]) / 3)])
    affine = nib.affines.from_matvec(rotation, [12.5, -7.25, 3.0]) @ base
    return affine


@pytest.mark.parametrize(
    ("axcodes", "spacing", "degrees"),
    [
        ("RAS", (1, 1, 4), 0),
        ("LPS", (1, 1, 4), 14),
        ("PIR", (1.1, 0.9, 5), 25),
        ("SAL", (3.3, 1, 1), 9),
        ("LAS", (0.5, 0.5, 3), 17),
        ("ARS", (2, 2, 2), 30),
    ],
)
def test_a_feature_stays_where_it_is_in_millimetres(axcodes, spacing, degrees):
    shape = [round(48 / step) + odd for step, odd in zip(spacing, (0, 1, 0), strict=True)]
    affine = turned(axcodes, spacing, degrees)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    place = nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2) + [2.3, -1.7, 3.1]
    distance = np.linalg.norm(nib.affines.apply_affine(affine, grid) - place, axis=-1)
    blob = torch.from_numpy(np.exp(-((distance / 5) ** 2) / 2))[None]
    image = MetaTensor(blob, affine=affine, meta={"filename_or_obj": "x", "original_affine": affine})

    restored = RestoreToSpacingd("image")({"image": Orientation("RAS", labels=None)(image)})["image"]
    back = ToSourceAxesd("pred")({"image": image, "pred": restored})["pred"]
    for result in (restored, back):
        inside = np.stack(np.meshgrid(*(np.arange(n) for n in result.shape[1:]), indexing="ij"), axis=-1)
        mass = np.clip(np.asarray(result[0]), 0, None)[..., None]
        found = nib.affines.apply_affine(
            np.asarray(result.affine), (inside * mass).sum((0, 1, 2)) / mass.sum()
        )
        np.testing.assert_allclose(found, place, atol=0.1)
        fine = [step if abs(step - 1) <= 0.05 else 1 for step in spacing]
        zooms = nib.affines.voxel_sizes(np.asarray(result.affine))
        np.testing.assert_allclose(sorted(zooms), sorted(fine), atol=1e-6)
    assert nib.aff2axcodes(np.asarray(restored.affine)) == nib.aff2axcodes(turned("RAS", (1, 1, 1), degrees))
    assert nib.aff2axcodes(np.asarray(back.affine)) == nib.aff2axcodes(affine)


@pytest.mark.parametrize("factor", [2, 3])
def test_finer_axes_are_averaged(factor):
    low = scan((8 * factor, 6 * factor, 10), (1 / factor, 1 / factor, 1))
    high = RestoreToSpacingd("image")({"image": low})["image"]
    expected = torch.nn.functional.avg_pool3d(low.as_tensor()[None], (factor, factor, 1))[0]
    torch.testing.assert_close(high.as_tensor(), expected, rtol=0, atol=1e-5)
    assert measurement_from_meta(high.shape[1:], high.meta).axes == (None, None, None)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.96, 1.04, 1.0499)], ids=str)
def test_axes_near_the_target_keep_their_voxels(spacing):
    low = scan((9, 10, 11), spacing)
    voxels, affine, meta = low.as_tensor().clone(), low.affine.clone(), dict(low.meta)
    high = RestoreToSpacingd("image")({"image": low})["image"]
    assert torch.equal(high.as_tensor(), voxels) and torch.equal(high.affine, affine)
    assert measurement_from_meta(high.shape[1:], high.meta).axes == (None, None, None)
    # the caller's volume is not written to
    assert torch.equal(low.as_tensor(), voxels) and set(low.meta) == set(meta)


@pytest.mark.parametrize("spacing", [(1, 1, 5), (1, 1, 1)], ids=str)
def test_the_scan_itself_is_not_written_to(spacing):
    low = scan((9, 10, 11), spacing)
    affine, names = low.affine.clone(), set(low.meta)
    high = RestoreToSpacingd("image")({"image": low})["image"]
    assert torch.equal(low.affine, affine) and set(low.meta) == names
    assert "slice_sampling" in high.meta and high.meta["filename_or_obj"] == "/x/a.nii.gz"


@pytest.mark.parametrize("target", [0.7, (1, 2, 1.5), 2], ids=str)
def test_target_spacing_may_differ_by_axis(target):
    low = scan((20, 20, 6), (1.4, 3, 6))
    high = RestoreToSpacingd("image", spacing=target)({"image": low})["image"]
    wanted = np.broadcast_to(target, 3)
    np.testing.assert_allclose(nib.affines.voxel_sizes(np.asarray(high.affine)), wanted, atol=1e-9)
    sides = np.array(high.shape[1:]) * wanted
    assert (np.abs(sides - [28, 60, 36]) <= wanted / 2 + 1e-9).all()
    np.testing.assert_allclose(centre(high), centre(low), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_what_was_recorded_survives_collation(batch_size):
    restore = RestoreToSpacingd("image", profile="gaussian", slice_thickness=3)
    spacings = [(1, 1, 5), (1, 4, 1.25)]
    lows = [scan((20, 16, 8), (1, 1, 5)), scan((20, 4, 32), (1, 4, 1.25))]
    highs = [restore({"image": low}) for low in lows]
    recorded = [measurement_from_meta(high["image"].shape[1:], high["image"].meta).axes for high in highs]
    assert [[axis is not None for axis in axes] for axes in recorded] == [
        [step > 1.05 for step in spacing] for spacing in spacings
    ]
    if batch_size == 2:  # a batch has one shape
        highs = [highs[0], {"image": highs[0]["image"].clone()}]
        highs[1]["image"].meta["slice_sampling"] = highs[0]["image"].meta["slice_sampling"] * [1, 1, 0.5, 1]
        recorded = [measurement_from_meta(h["image"].shape[1:], h["image"].meta).axes for h in highs]
    found = [
        measurement_from_meta(item["image"].shape[1:], item["image"].meta).axes
        for batch in DataLoader(Dataset(highs), batch_size=batch_size)
        for item in decollate_batch(batch)
    ]
    assert found == recorded


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "PIR", "SAL", "IRP", "ASR"])
@pytest.mark.parametrize("degrees", [0, 20])
def test_axes_of_the_source_undo_the_orientation(axcodes, degrees):
    affine = turned(axcodes, (1, 2, 3), degrees)
    source = MetaTensor(torch.rand(1, 5, 6, 7), affine=affine, meta={"original_affine": affine})
    image = Orientationd("image", axcodes="RAS", labels=None)({"image": source.clone()})["image"]
    assert nib.aff2axcodes(np.asarray(image.affine)) == ("R", "A", "S")
    data = {"pred": image * 2, "image": image, "other": image}
    back = ToSourceAxesd("pred")(data)
    np.testing.assert_allclose(np.asarray(back["pred"].affine), affine, atol=1e-9)
    torch.testing.assert_close(back["pred"].as_tensor(), 2 * source.as_tensor())
    assert torch.equal(back["image"], image) and torch.equal(back["other"], image)


def test_missing_keys():
    data = {"image": scan((5, 5, 5), (1, 1, 1))}
    data["image"].meta["original_affine"] = np.eye(4)
    for transform, keys in ((RestoreToSpacingd, ["image", "t1ce"]), (ToSourceAxesd, "pred")):
        assert set(transform(keys, allow_missing_keys=True)(data)) == {"image"}
        with pytest.raises(KeyError):
            transform(keys)(data)
