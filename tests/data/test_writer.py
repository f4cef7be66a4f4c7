"""Writing results: geometry kept, whole or absent, marked as synthetic; on real files."""

import json
import os
import resource
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch

from monai_diffens.data.load_scan import LoadScand
from monai_diffens.data.writer import SaveVolumed, output_path, save_volume
from monai_diffens.files import case_name
from monai_diffens.messages import InputRejected

OBLIQUE = np.array([[0.8, -0.6, 0, -20], [0.6, 0.8, 0, -30], [0, 0, -1.5, 15], [0, 0, 0, 1]])
SHEARED = np.array([[1, 0.2, 0, -12], [0, 1, 0, -14], [0, 0, 1, -10], [0, 0, 0, 1.0]])


def head(shape=(20, 24, 18)) -> np.ndarray:
    """Return an ellipsoid on 0, float32."""
    grid = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    return (1000 * np.clip(1 - sum(g**2 for g in grid), 0, 1)).astype(np.float32)


def pred(**meta) -> MetaTensor:
    """Return a result as it leaves the postprocessing."""
    return MetaTensor(torch.from_numpy(head())[None], affine=torch.from_numpy(OBLIQUE), meta=meta)


def test_values_affine_unit_and_mark_are_written(tmp_path):
    path = save_volume(head(), OBLIQUE, tmp_path / "new" / "a_sr.nii.gz", sform_code=1, qform_code=1)
    image = nib.load(path)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), head())
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-6)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert bytes(image.header["descrip"]).startswith(b"synthetic - Diff-Ensembler ")
    assert [p.name for p in path.parent.iterdir()] == ["a_sr.nii.gz"]


@pytest.mark.parametrize(
    ("codes", "written"), [((1, 1), (1, 1)), ((4, 0), (4, 0)), ((0, 1), (0, 1)), ((0, 0), (2, 0))]
)
def test_row_11_form_codes_are_kept(tmp_path, codes, written):
    image = nib.load(
        save_volume(head(), OBLIQUE, tmp_path / "a.nii", sform_code=codes[0], qform_code=codes[1])
    )
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == written
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    if codes[1]:
        np.testing.assert_allclose(image.get_qform(), OBLIQUE, atol=1e-5)


@pytest.mark.parametrize("sform_code", [0, 3])
def test_row_12_sheared_affine_has_no_qform(tmp_path, sform_code):
    image = nib.load(save_volume(head(), SHEARED, tmp_path / "a.nii.gz", sform_code=sform_code, qform_code=1))
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (sform_code or 2, 0)
    np.testing.assert_allclose(image.affine, SHEARED, atol=1e-6)


def test_row_25_nothing_is_clipped_or_rounded(tmp_path):
    array = head() * 100 - 12345.678
    image = nib.load(save_volume(torch.from_numpy(array), OBLIQUE, tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), array)


def test_half_precision_results_can_be_written(tmp_path):
    path = save_volume(torch.ones(4, 4, 4, dtype=torch.bfloat16), OBLIQUE, tmp_path / "a.nii")
    assert nib.load(path).get_fdata().max() == 1


def test_equal_volumes_give_equal_bytes(tmp_path):
    first, second = (save_volume(head(), OBLIQUE, tmp_path / f"{n}.nii.gz").read_bytes() for n in "ab")
    assert first == second


@pytest.mark.parametrize(
    ("array", "affine", "name", "message"),
    [
        (np.ones((4, 4)), OBLIQUE, "a.nii", "volume"),
        (np.full((4, 4, 4), np.nan), OBLIQUE, "a.nii", "NaN"),
        (np.ones((4, 4, 4)), np.zeros((4, 4)), "a.nii", "singular"),
        (np.ones((4, 4, 4)), OBLIQUE, "a.mgz", "ends with"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, array, affine, name, message):
    with pytest.raises(ValueError, match=message):
        save_volume(array, affine, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_row_31_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = save_volume(head(), OBLIQUE, tmp_path / "a.nii")
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save_volume(head() + 1, OBLIQUE, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii"]


def test_row_31_an_interrupt_leaves_no_half_file(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_volume(head(), OBLIQUE, tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_row_33_two_writers_and_a_reader(tmp_path):
    path = save_volume(head(), OBLIQUE, tmp_path / "a.nii.gz")

    def write(value: float) -> None:
        for _ in range(15):
            save_volume(np.full((20, 24, 18), value), OBLIQUE, path)

    writers = [threading.Thread(target=write, args=(value,)) for value in (1.0, 2.0)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seen = np.unique(np.asanyarray(nib.load(path).dataobj))
        assert len(seen) == 1 or len(seen) > 100, "a mixture of two results"
    for writer in writers:
        writer.join()
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


def test_saver_writes_volume_and_sidecar(tmp_path):
    sampling = {"num_steps": 10, "seed": torch.tensor(3), "weights": np.array([0.5, 0.5])}
    volume = pred(filename_or_obj="/somewhere/scan.nii.gz", sform_code=1, qform_code=1, sampling=sampling)
    data = {"pred": volume, "case": "scan", "warnings": ["one"]}
    assert SaveVolumed(output_dir=tmp_path)(data) == data
    image = nib.load(tmp_path / "scan_sr.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), head())
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    facts = json.loads((tmp_path / "scan_sr.json").read_text())
    assert facts["SynthesizedFrom"] == "scan.nii.gz"
    assert facts["Sampling"] == {"num_steps": 10, "seed": 3, "weights": [0.5, 0.5]}
    assert facts["Warnings"] == ["one"]
    assert facts["GeneratedBy"][0]["Name"] == "Diff-Ensembler"
    assert facts["Synthetic"] is True and "somewhere" not in str(facts)


def test_maps_are_written_before_their_result_and_named_in_its_sidecar(tmp_path):
    bad = pred()
    bad[0, 0, 0, 0] = float("nan")
    saver = SaveVolumed(("pred_std", "pred"), output_dir=tmp_path, suffix=("sr_std", "sr"))
    with pytest.raises(ValueError, match="NaN"):
        saver({"pred": bad, "pred_std": pred(), "case": "a"})
    assert "a_sr_std.nii.gz" in os.listdir(tmp_path) and "a_sr.nii.gz" not in os.listdir(tmp_path)
    saver({"pred": pred(), "pred_std": pred(), "case": "a"})
    assert sorted(os.listdir(tmp_path)) == ["a_sr.json", "a_sr.nii.gz", "a_sr_std.nii.gz"]
    assert json.loads((tmp_path / "a_sr.json").read_text())["Maps"] == ["a_sr_std.nii.gz"]


def test_saver_after_a_data_loader(tmp_path):
    image = nib.Nifti1Image(head(), OBLIQUE)
    image.header.set_xyzt_units("mm")
    image.set_sform(OBLIQUE, 4)
    image.set_qform(OBLIQUE, 1)
    image.to_filename(tmp_path / "scan.nii.gz")
    item = {"image": str(tmp_path / "scan.nii.gz"), "case": "scan", "warnings": []}

    batch = next(iter(DataLoader(Dataset([item], LoadScand("image")), batch_size=1)))
    batch["pred"] = batch["image"] * 2
    for case in decollate_batch(batch):
        SaveVolumed("pred", output_dir=tmp_path / "out")(case)
    written = nib.load(tmp_path / "out" / "scan_sr.nii.gz")
    np.testing.assert_allclose(written.get_fdata(), head() * 2)
    np.testing.assert_allclose(written.affine, OBLIQUE, atol=1e-6)
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (4, 1)
    assert json.loads((tmp_path / "out" / "scan_sr.json").read_text())["Warnings"] == []


def test_saver_names_the_result_after_the_file_where_no_case_is_given(tmp_path):
    SaveVolumed(output_dir=tmp_path, suffix="up")({"pred": pred(filename_or_obj="/x/my scan.nii.gz")})
    assert (tmp_path / "my_scan_up.nii.gz").is_file()


def test_saver_refuses_what_it_cannot_place(tmp_path):
    saver = SaveVolumed(output_dir=tmp_path)
    with pytest.raises(TypeError, match="MetaTensor"):
        saver({"pred": torch.ones(1, 4, 4, 4)})
    with pytest.raises(ValueError, match=r"\(1, X, Y, Z\)"):
        saver({"pred": MetaTensor(torch.ones(2, 4, 4, 4))})
    with pytest.raises(ValueError, match="different suffixes"):
        SaveVolumed(["a", "b"], output_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", ["../evil", "/evil", "..", "a/b", ".hidden", "a\nb", "a\\b"])
def test_row_29_a_case_name_cannot_leave_the_folder(tmp_path, case):
    out = tmp_path / "deep" / "out"
    with pytest.raises(InputRejected, match="not a plain file name"):
        SaveVolumed(output_dir=out)({"pred": pred(), "case": case})
    assert list(tmp_path.iterdir()) == []


def test_row_29_a_link_in_the_output_folder_is_replaced_not_followed(tmp_path):
    target = tmp_path / "precious.nii.gz"
    target.write_bytes(b"precious")
    link = tmp_path / "out" / "a_sr.nii.gz"
    link.parent.mkdir()
    link.symlink_to(target)
    save_volume(head(), OBLIQUE, link)
    assert target.read_bytes() == b"precious" and not link.is_symlink()


def test_row_29_case_names_are_safe_and_stable():
    assert case_name("/data/sub-01_T1w.nii.gz") == "sub-01_T1w"
    assert case_name("A.NII.GZ") == "A"
    assert case_name("..$(rm -rf) ö;.nii") == "__rm_-rf__ö_"
    assert case_name(".nii.gz") == "case"
    long = case_name("x" * 250 + ".nii")
    assert len(long) == 180 and long != case_name("x" * 249 + ".nii")
    for name in ("a.nii.nii.gz", "é" * 120, "x" * 250, "-a", "._.nii"):
        assert case_name(case_name(name)) == case_name(name)


def test_suffix_is_a_plain_word(tmp_path):
    assert output_path(tmp_path, "a", "sr") == Path(tmp_path) / "a_sr.nii.gz"
    with pytest.raises(InputRejected, match="suffix"):
        output_path(tmp_path, "a", "../sr")
