"""Series with tags dropped, doubled, contradicted, and bytes changed: refused in one line, or read right.

What is accepted is compared with pydicom's own reading, voxel by voxel in millimetres. For longer:

    DIFFENS_FUZZ_SECONDS=600 python -m pytest tests/data/test_dicom_fuzzing.py
"""

import json
import os
import time
import warnings
from contextlib import suppress
from pathlib import Path

import mr_series
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.dicom.study import study_table, table_text
from monai_diffens.data.load_scan import LoadScand
from monai_diffens.messages import InputRejected

SECONDS = float(os.environ.get("DIFFENS_FUZZ_SECONDS", "5"))
FIRST = int(os.environ.get("DIFFENS_FUZZ_FIRST", "0"))  # seed to begin with
SHAPE = (10, 12, 6)
PLACE_MM = 0.15  # a slice may lie this far off its place in the volume
IDENTIFIERS = ("Müller", "Mueller", "Änne", "PID-4711", "ACC-99", "19610217")
VALUES = (
    [None, "", " ", "abc", "0", "-1", 0, 1, 2, 7, 1e30, -1e30, 1e-30, "NaN", "inf", "1e400", "1\\2"]
    + ["x" * 70, "1.2.3", ["1", "2", "3"], [0.0] * 6, [1e9] * 3, ["a", "b"], b"\xff\xfe", "1.5.\\", "9" * 400]
    + ["MONOCHROME1", "RGB", "CT", ["DERIVED", "PRIMARY", "ADC"]]
)
AFFINES = [
    np.diag([1, 1, 5, 1.0]),
    nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, 0.1) * [0.9, 1.1, 4]),
]


def spoiled(rng: np.random.Generator) -> list[pydicom.Dataset]:
    """A sound series with one to three tags changed in one, some or all of its slices."""
    head = mr_series.thick_head(AFFINES[rng.integers(2)], SHAPE)
    head = nib.Nifti1Image(head.get_fdata() + 50, head.affine)
    slices = mr_series.series(head, slope=float(rng.choice([1, 0.5])))
    for _ in range(rng.integers(1, 4)):
        tags = [element.tag for element in slices[0]]
        tag = tags[rng.integers(len(tags))]
        change = CHANGES[rng.integers(len(CHANGES))]
        value = VALUES[rng.integers(len(VALUES))]
        which = [slice(None), slice(0, 1), slice(-1, None), slice(2, 4), slice(0, None, 2)][rng.integers(5)]
        for one in slices[which]:
            if tag in one:
                change(one, tag, value, rng)
    return slices


def drop(one, tag, value, rng):
    del one[tag]


def double(one, tag, value, rng):
    held = one[tag].value
    each = list(held) if isinstance(held, pydicom.multival.MultiValue) else [held]
    if isinstance(held, bytes):
        one[tag] = DataElement(tag, one[tag].VR, held + held)
    else:
        one[tag] = DataElement(tag, one[tag].VR, each * 2)


def contradict(one, tag, value, rng):
    one[tag] = DataElement(tag, one[tag].VR, value)


def of_another_kind(one, tag, value, rng):
    one[tag] = DataElement(tag, "LO", str(value))


def scale(one, tag, value, rng):
    """Multiply numbers, shift them a little or a lot, swap their order."""
    element = one[tag]
    if element.VR not in ("DS", "IS", "US", "FL", "FD") or element.value is None:
        return
    held = element.value
    several = isinstance(held, pydicom.multival.MultiValue)
    factor, shift = rng.choice([1, 2, 0.5, -1, 1.001]), rng.choice([0, 0.01, 0.3, 40])
    numbers = [float(each) * factor + shift for each in (held if several else [held])]
    if rng.random() < 0.3:
        numbers.reverse()
    made = [DSfloat(each, auto_format=True) if element.VR == "DS" else int(each) for each in numbers]
    one[tag] = DataElement(tag, element.VR, made if several else made[0])


CHANGES = (drop, double, contradict, of_another_kind, scale, scale)


def written(slices, folder: Path, rng: np.random.Generator) -> list[Path]:
    """The files that could be written; some of them cut or changed afterwards."""
    files = []
    for number, one in enumerate(slices):
        path = folder / f"{number}.dcm"
        try:
            mr_series.write([one], folder, lambda _, name=path.name: name)
        except Exception:  # not every value can be written: the test then has fewer slices
            path.unlink(missing_ok=True)
            continue
        files.append(path)
    if files and rng.random() < 0.2:
        path = files[rng.integers(len(files))]
        content = bytearray(path.read_bytes())
        if rng.random() < 0.5:
            content = content[: rng.integers(len(content))]
        else:
            for place in rng.integers(0, len(content), 4):
                content[place] = rng.integers(256)
        path.write_bytes(content)
    return files


def check_against_pydicom(item) -> None:
    """Every voxel lies where the headers say and has the value that pydicom reads."""
    image = LoadScand()({"image": item["image"]})["image"]
    files = json.loads(image.meta["dicom_files"])
    assert sorted(files) == sorted(item["image"]) and image.shape[3] == len(files)
    values, affine = image[0].numpy(), np.asarray(image.affine, dtype=float)
    for index, file in enumerate(files):
        one = pydicom.dcmread(file)
        one.file_meta.setdefault("TransferSyntaxUID", ExplicitVRLittleEndian)  # as written; its tag was hit
        slope, intercept = float(one.get("RescaleSlope") or 1), float(one.get("RescaleIntercept") or 0)
        read = one.pixel_array * slope + intercept
        np.testing.assert_allclose(values[..., index].T, read, rtol=1e-5, atol=1e-3)
        row, column = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
        down, right = (float(value) for value in one.PixelSpacing)
        for c, r in ((0, 0), (SHAPE[0] - 1, 0), (0, SHAPE[1] - 1)):
            place = np.array(one.ImagePositionPatient, float) + row * right * c + column * down * r
            found = nib.affines.apply_affine(affine, [c, r, index]) * [-1, -1, 1]
            assert np.linalg.norm(found - place) < PLACE_MM, (found, place)


def attempt(folder: Path, out: Path, told: list[str]) -> bool:
    """Take a folder through the boundary; return whether something was accepted."""
    try:
        told.append(table_text(study_table(folder)))
    except InputRejected as error:
        told.append(str(error))
    cases = CaseFolder(folder, out, target_spacing=1.0)
    try:
        items = cases.items
    except InputRejected as stop:
        assert len(str(stop).splitlines()) == 1
        return False
    told += [entry.reason for entry in cases.rejected] + [item["case"] for item in items]
    for item in items:
        check_against_pydicom(item)
    files = len(list(folder.iterdir()))
    assert sum(len(item["image"]) for item in items) == files or cases.rejected or cases.left_out
    return bool(items)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # pydicom warns of what the test writes
def test_spoiled_series_are_refused_or_read_right(tmp_path, capsys, caplog):
    ends, seed = time.monotonic() + SECONDS, FIRST
    accepted = refused = 0
    while time.monotonic() < ends:
        rng, folder, told = np.random.default_rng(seed), tmp_path / str(seed), []
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            files: list[Path] = []
            with suppress(Exception):  # a value that pydicom cannot hold
                files = written(spoiled(rng), folder, rng)
            if files:
                try:
                    done = attempt(folder, tmp_path / "out", told)
                except Exception as error:
                    raise AssertionError(f"seed {seed} (DIFFENS_FUZZ_FIRST={seed})") from error
                accepted, refused = accepted + done, refused + (not done)
                text = " ".join(told) + caplog.text + "".join(capsys.readouterr())
                assert not [name for name in IDENTIFIERS if name in text], (seed, text)
                assert "Traceback" not in text and str(tmp_path) not in text, (seed, text)
                for file in folder.iterdir():
                    file.unlink()
        caplog.clear()
        seed += 1
    print(f"{accepted + refused} series: {accepted} accepted and right, {refused} refused")
    assert accepted >= min(SECONDS / 3, 5) and refused >= min(SECONDS / 3, 5)
