"""Cases of several contrasts, good and bad, made from the real scans of one head."""

import json
from pathlib import Path

import mr_series
import nibabel as nib
import numpy as np
from bad_files import FACTOR, SIZE, image

from monai_diffens.contrasts import CONTRASTS
from monai_diffens.demo import load_truth

T1W, ENHANCED, T2W, FLAIR = CONTRASTS
Head = dict[str, nib.Nifti1Image]


def real_head(data_dir: Path | None) -> Head:
    """Crops (40, 44, 40) at 1 mm of all contrasts of one subject, the FLAIR in slices of 5 mm.

    Where there are no real scans they are made from the template brain: fluid bright in T2w, a few vessels
    bright with contrast agent.
    """
    if data_dir is not None:
        anat = data_dir / "sub-upenn01" / "anat"
        whole = {name: nib.load(anat / f"sub-upenn01_{name}.nii.gz") for name in CONTRASTS}
        values = {name: scan.get_fdata(dtype=np.float32) for name, scan in whole.items()}
        affine = whole[T1W].affine
    else:
        volume, affine = load_truth(max(SIZE))
        brain = volume.numpy().reshape(volume.shape[-3:])
        fluid, vessels = (brain > 0) * (1.1 - brain) ** 3, np.where(brain > np.quantile(brain, 0.995), 3, 1)
        made = (brain, brain * vessels, fluid, np.sqrt(brain))
        values = {name: 300 * each for name, each in zip(CONTRASTS, made, strict=True)}
    start = [(full - side) // 2 for full, side in zip(values[T1W].shape, SIZE, strict=True)]
    box = tuple(slice(s, s + side) for s, side in zip(start, SIZE, strict=True))
    place = affine.copy()
    place[:3, 3] = nib.affines.apply_affine(affine, start)
    head = {name: image(np.round(each[box]).astype(np.int16), place) for name, each in values.items()}
    thick = values[FLAIR][box].reshape(*SIZE[:2], -1, FACTOR).mean(-1)
    head[FLAIR] = image(np.round(thick).astype(np.int16), sliced(place))
    return head


def sliced(affine: np.ndarray) -> np.ndarray:
    """Affine of the same box in slices along the last axis."""
    step = np.diag([1.0, 1, FACTOR, 1])
    step[2, 3] = (FACTOR - 1) / 2
    return affine @ step


def moved(scan: nib.Nifti1Image, *voxels: float) -> nib.Nifti1Image:
    """The same voxels in another place."""
    affine = scan.affine.copy()
    affine[:3, 3] = nib.affines.apply_affine(affine, voxels)
    return image(np.asanyarray(scan.dataobj), affine)


def save(folder: Path, case: str, scans: Head) -> None:
    """Write a case folder."""
    (folder / case).mkdir(parents=True)
    for name, scan in scans.items():
        scan.to_filename(folder / case / f"{case}_{name}.nii.gz")


def write_cases(folder: Path, head: Head) -> None:
    """A folder of case folders for a run with the default options."""
    save(folder, "good", head)
    save(folder, "swapped", {T1W: head[T2W], T2W: head[T1W]})
    save(folder, "agent", {T1W: head[ENHANCED], ENHANCED: head[T1W]})
    save(folder, "none", {"PDw": head[T1W], "T9w": head[ENHANCED]})
    save(folder, "grids", {T1W: head[T1W], T2W: moved(head[T2W], 0.4, 0, 0)})
    save(folder, "apart", {T1W: head[T1W], T2W: moved(head[T2W], 30, 0, 0)})
    voxels = np.asanyarray(head[T2W].dataobj)
    save(folder, "nan", {T1W: head[T1W], T2W: image(with_nan(voxels), head[T2W].affine)})
    save(folder, "cut", {T1W: head[T1W]})
    path = folder / "cut" / f"cut_{T1W}.nii.gz"
    path.write_bytes(path.read_bytes()[:3000])
    outside = folder.parent / "patient_x"
    save(outside, "linked", {T2W: head[T2W]})
    (folder / "linked").mkdir()
    (folder / "linked" / f"linked_{T2W}.nii.gz").symlink_to(outside / "linked" / f"linked_{T2W}.nii.gz")


def with_nan(voxels: np.ndarray) -> np.ndarray:
    """A scan whose brightest part is NaN."""
    return np.where(voxels > voxels.max() / 2, np.nan, voxels.astype(np.float32))


def write_list(folder: Path, masks: Path, head: Head) -> Path:
    """A data list for a run with what users may ask for, and masks of its cases."""
    folder.mkdir(parents=True)
    masks.mkdir()
    voxels = np.asanyarray(head[T2W].dataobj)
    head[T1W].to_filename(folder / "t1.nii.gz")
    image(with_nan(voxels), head[T2W].affine).to_filename(folder / "t2.nii.gz")
    thick = np.asanyarray(head[FLAIR].dataobj)
    image(np.stack([thick * 0, thick], -1), head[FLAIR].affine).to_filename(folder / "flair.nii.gz")
    brain = (np.asanyarray(head[T1W].dataobj) > 0).astype(np.uint8)
    brain[: SIZE[0] // 2] = 0  # the right half alone, so that a mask that counts shows
    series = mr_series.series(head[T1W])
    mr_series.write(series, folder / mr_series.PATIENT_NAME)
    mr_series.write(series[:9] + series[11:], folder / "gap")
    cases = [
        {"case": "all", T1W: "t1.nii.gz", T2W: "t2.nii.gz", FLAIR: "flair.nii.gz"},
        {"case": "dicom", T1W: mr_series.PATIENT_NAME, FLAIR: "flair.nii.gz"},
        {"case": "gap", T1W: "gap"},
        {"case": "unmasked", T1W: "t1.nii.gz"},
        {"case": "unknown", "T1": "t1.nii.gz"},
        {"case": "../escaped", T1W: "t1.nii.gz"},
        {"case": "/escaped", T1W: "t1.nii.gz"},
        {"case": "nothing"},
    ]
    for case in ("all", "dicom", "gap", "unknown"):
        image(brain, head[T1W].affine).to_filename(masks / f"{case}.nii.gz")
    path = folder / "list.json"
    path.write_text(json.dumps({"testing": cases}))
    return path
