"""What is wrong with training data is named before a training; what serves is listed."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import zoom

from monai_diffens.data.prepare import prepare_volumes, sharpness_across_slices
from monai_diffens.data.training_volumes import draw_weights, training_volumes
from monai_diffens.messages import InputRejected

SHAPE = (24, 28, 20)


def save(folder, subject, values=None, spacing=1.0, seed=0):
    values = np.random.default_rng(seed).integers(1, 300, SHAPE) if values is None else values
    path = folder / subject / "anat" / f"{subject}_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    nib.Nifti1Image(values.astype(np.int16), np.diag([spacing] * 3 + [1])).to_filename(path)
    return path


def test_sharpness_tells_thick_slices_from_isotropic_detail():
    fine = np.random.default_rng(0).uniform(10, 300, SHAPE)
    assert sharpness_across_slices(fine) > 0.9
    thick = zoom(fine[:, :, ::5], (1, 1, 5), order=1)
    assert sharpness_across_slices(thick) < 0.3
    assert sharpness_across_slices(np.full(SHAPE, 7.0)) == 0


def test_good_data_are_listed_and_split_by_subject(tmp_path):
    for number in range(6):
        save(tmp_path / "bids", f"sub-{number}", seed=number)
    blurred = zoom(np.random.default_rng(9).uniform(10, 300, SHAPE)[:, :, ::5], (1, 1, 5), order=1)
    save(tmp_path / "bids", "sub-blurred", values=blurred)
    path = prepare_volumes(tmp_path / "bids", tmp_path / "out")
    listed = json.loads(path.read_text())
    assert [item["subject"] for item in listed["validation"]] == ["sub-4"]
    assert len(listed["training"]) == 6 and listed["test"] == []
    found = training_volumes("", "train", path)
    assert [item["case"] for item in found] == [f"sub-{n}_T1w" for n in (0, 1, 2, 3, 5)]
    assert all(nib.load(item["label"]).shape == SHAPE for item in found)
    rows = list(csv.DictReader((tmp_path / "out" / "prepare.csv").read_text().splitlines()))
    (thick,) = [row for row in rows if row["subject"] == "sub-blurred"]
    assert thick["verdict"].startswith("for axial slices alone: ") and float(thick["sharpness"]) < 0.5
    (added,) = [item for item in training_volumes("", "train", path, planes="axial") if item not in found]
    assert added["subject"] == "sub-blurred" and added["sharp_plane"] == "axial"
    assert training_volumes("", "train", path, planes=["coronal", "sagittal"]) == found


def test_thick_slices_are_found_in_the_head_not_in_the_array(tmp_path):
    """Stored as (front, head, right): what is blurred along the second array axis has sharp axial slices."""
    fine = np.random.default_rng(9).uniform(10, 300, SHAPE)
    blurred = zoom(fine[:, ::4], (1, 4, 1), order=1)
    path = save(tmp_path / "bids", "sub-0", values=blurred)
    axes = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    nib.Nifti1Image(blurred.astype(np.int16), axes).to_filename(path)
    with pytest.raises(InputRejected, match="no volume serves for training"):  # none is sharp in all planes
        prepare_volumes(tmp_path / "bids", tmp_path / "out")
    path = tmp_path / "out" / "data_list.json"
    (item,) = json.loads(path.read_text())["training"]
    assert item["sharp_plane"] == "axial"
    assert len(training_volumes("", "train", path, planes="axial")) == 1
    with pytest.raises(InputRejected, match="every volume under 'training' was acquired in thick slices"):
        training_volumes("", "train", path)


def test_what_is_silently_wrong_is_refused(tmp_path):
    bids = tmp_path / "bids"
    first = save(bids, "sub-0")
    save(bids, "sub-1", spacing=2.0, seed=1)
    save(bids, "sub-2", values=np.full(SHAPE, 3))
    shutil.copytree(bids / "sub-0", bids / "sub-3")  # the same scan under another subject's name
    (bids / "sub-3" / "anat" / first.name).rename(bids / "sub-3" / "anat" / "sub-3_T1w.nii.gz")
    with pytest.raises(InputRejected) as error:
        prepare_volumes(bids, tmp_path / "out")
    told = str(error.value).splitlines()
    assert len(told) == 3
    assert told[0] == "the same file under several names: sub-0_T1w, sub-3_T1w; keep one"
    assert told[1].startswith("sub-1_T1w.nii.gz: voxels of 2 x 2 x 2 mm, 1 mm is needed for ground truth")
    assert told[2].startswith("sub-2_T1w.nii.gz: every voxel has the value 3")


def test_a_subject_in_two_splits_is_refused(tmp_path):
    for number in range(2):
        save(tmp_path, f"sub-{number}", seed=number)
    items = [{"label": f"sub-{n}/anat/sub-{n}_T1w.nii.gz", "subject": "one"} for n in range(2)]
    lists = {"training": items[:1], "validation": items[1:]}
    (tmp_path / "list.json").write_text(json.dumps(lists))
    with pytest.raises(InputRejected, match="one: in the splits train and val"):
        prepare_volumes("", tmp_path / "out", tmp_path / "list.json")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", r"not a data list \(JSONDecodeError\)"),
        ('{"training": []}', "no volumes under 'training'"),
        ('{"training": [{"image": "a"}]}', "'training' 0 is no item with a 'label'"),
        ('{"training": [{"label": "a/b.nii"}]}', "'training' 0: no file b.nii"),
        ('{"training": [{"label": "a", "sharp_plane": "axail"}]}', "sharp_plane must be one of axial, "),
    ],
)
def test_a_data_list_that_does_not_serve(tmp_path, content, told):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(InputRejected, match=told):
        training_volumes("", "train", tmp_path / "list.json")


@pytest.mark.parametrize(("thick", "share"), [(35, 0.5), (35, 0.0), (1, 1.0), (13, 0.2)])
def test_thick_slices_are_drawn_as_often_as_asked(thick, share):
    items = [{"label": "a"}] * 13 + [{"label": "b", "sharp_plane": "axial"}] * thick
    weights = draw_weights(items, share)
    assert sum(weights[13:]) == pytest.approx(share) and sum(weights) == pytest.approx(1)
    assert len(set(weights[:13])) == len(set(weights[13:])) == 1


@pytest.mark.parametrize("items", [[{"label": "a"}] * 3, [{"label": "a", "sharp_plane": "axial"}] * 3])
def test_volumes_of_one_sort_are_drawn_alike(items):
    assert draw_weights(items, 0.3) == [1, 1, 1]
    with pytest.raises(InputRejected, match=r"thick_share and head_share"):
        draw_weights(items, 1.5)
