"""Bad inputs made from one real scan; what each is and why, in the order of docs/bad_inputs.md."""

from pathlib import Path

import nibabel as nib
import numpy as np

from monai_diffens.demo import load_truth

FACTOR = 5  # slices of 5 mm
SIZE = (40, 44, 8 * FACTOR)
TURNED = {"r17_flipped": "LPI", "r17_permuted": "AIR", "r19_first_axis": "SRA"}  # in RAS it lies straight


def real_scan(data_dir: Path | None) -> nib.Nifti1Image:
    """A thick-sliced crop (40, 44, 8), int16, 1 x 1 x 5 mm, of a real T1w or else of the template brain."""
    if data_dir is not None:
        whole = nib.load(data_dir / "sub-upenn01" / "anat" / "sub-upenn01_T1w.nii.gz")
        values, affine = whole.get_fdata(dtype=np.float32), whole.affine
    else:
        volume, affine = load_truth(max(SIZE))
        values = 320 * volume.numpy().reshape(volume.shape[-3:])
    start = [(full - side) // 2 for full, side in zip(values.shape, SIZE, strict=True)]
    crop = values[tuple(slice(s, s + side) for s, side in zip(start, SIZE, strict=True))]
    thick = crop.reshape(*SIZE[:2], -1, FACTOR).mean(-1)
    step = np.diag([1.0, 1, FACTOR, 1])
    step[:3, 3] = (*start[:2], start[2] + (FACTOR - 1) / 2)
    return image(np.round(thick).astype(np.int16), affine @ step)


def image(values: np.ndarray, affine: np.ndarray, sform: int = 1, qform: int = 1, unit: str = "mm"):
    """A NIfTI image with the given form codes and unit."""
    made = nib.Nifti1Image(values, affine)
    made.set_qform(affine, qform)
    made.set_sform(affine, sform)
    made.header.set_xyzt_units(unit)
    return made


def turned(scan: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    """The same anatomy in the same place, stored with other axes."""
    ends = (nib.orientations.axcodes2ornt(each) for each in (nib.aff2axcodes(scan.affine), codes))
    return scan.as_reoriented(nib.orientations.ornt_transform(*ends))


def write_all(folder: Path, scan: nib.Nifti1Image) -> None:
    """Write every file of one run over a folder with the default options."""
    voxels, affine = np.asanyarray(scan.dataobj), scan.affine
    real = voxels.astype(np.float32)

    def save(name: str, made: nib.Nifti1Image) -> Path:
        made.to_filename(folder / name)
        return folder / name

    save("r01_flat.nii.gz", image(voxels[:, :, 4], affine))
    save("r02_one_volume.nii.gz", image(voxels[..., None], affine))
    save("r03_series.nii.gz", image(np.stack([voxels, voxels // 2], -1), affine))
    save("r04_nan.nii.gz", image(np.where(real > real.max() / 2, np.nan, real), affine))
    save("r05_constant.nii.gz", image(np.full_like(voxels, 7), affine))
    (folder / "r06_empty.nii.gz").touch()
    whole = save("r07_cut.nii.gz", scan).read_bytes()
    (folder / "r07_cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "r08_picture.nii.gz").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(5000))
    (folder / "r08_named_wrong.nii").write_bytes(whole)

    tilted = affine.copy()
    tilted[:3, :3] = nib.eulerangles.euler2mat(z=0.2, x=0.35) @ affine[:3, :3]
    save("r11_oblique.nii.gz", image(voxels, tilted))
    sheared = affine.copy()
    sheared[:3, 1] += 0.2 * affine[:3, 0]
    made = nib.Nifti1Image(voxels, sheared)
    made.set_qform(None, 0)
    made.header.set_xyzt_units("mm")
    save("r12_sheared.nii.gz", made)
    for name, scale in (("zero", (0, 0, 0)), ("singular", (1, 1, 0))):
        made = image(voxels, affine)
        made.header["srow_x"][:3] *= scale
        made.header["srow_y"][:3] *= scale
        made.header["srow_z"][:3] *= scale
        write_as_is(folder / f"r13_{name}.nii", made.header, voxels)
    made = image(voxels, affine)
    moved = affine.copy()
    moved[:3, 3] += (9, -4, 2)
    made.set_qform(moved, 1)
    save("r14_two_places.nii.gz", made)
    save("r15_no_place.nii.gz", image(voxels, affine, sform=0, qform=0))
    micron = affine.copy()
    micron[:3] *= 1000
    save("r16_micron.nii.gz", image(voxels, micron, unit="micron"))
    save("r16_unknown.nii.gz", image(voxels, affine, unit="unknown"))
    for name, codes in TURNED.items():
        save(f"{name}.nii.gz", turned(scan, codes))
    for mm in (7, 11):
        save(f"r18_{mm}mm.nii.gz", image(voxels, affine @ np.diag([1, 1, mm / FACTOR, 1])))
    save("r20_fine.nii.gz", image(voxels.repeat(FACTOR, -1), affine @ np.diag([1, 1, 1 / FACTOR, 1])))
    save("r21_ct.nii.gz", image((voxels.astype(np.int32) * 4 - 1000).astype(np.int16), affine))
    scaled = image(real * np.float32(0.0037), affine)
    scaled.set_data_dtype(np.int16)
    save("r25_scaled.nii.gz", scaled)
    inside = real > 0
    scores = (real - real[inside].mean()) / real[inside].std() * inside
    save("r34_scores.nii.gz", image(scores, affine))
    made = image(voxels, affine)
    write_as_is(folder / "r35_offset.nii", made.header, voxels, vox_offset=0)
    write_as_is(folder / "r35_no_volume.nii", made.header, voxels, dim=[4, *voxels.shape, 0, 1, 1, 1])
    write_as_is(folder / "r36_qform.nii", made.header, voxels, quatern_b=3.0)
    outside = folder.parent / "patient_x"
    outside.mkdir()
    scan.to_filename(outside / "scan.nii.gz")
    (folder / "r29_link.nii.gz").symlink_to(outside / "scan.nii.gz")


def write_for_options(folder: Path, masks: Path, scan: nib.Nifti1Image) -> None:
    """Write files that are accepted with --force, --fill_nan, --volume 0 and --mask, and their masks."""
    voxels, affine = np.asanyarray(scan.dataobj), scan.affine
    real = voxels.astype(np.float32)
    brain = (voxels > 0).astype(np.uint8)
    brain[: SIZE[0] // 2] = 0  # the right half alone, so that a mask that counts shows
    fine = affine @ np.diag([0.5, 0.5, 1, 1])
    fine[:3, 3] = nib.affines.apply_affine(affine, (-0.25, -0.25, 0))
    files = {
        "r03_series": (np.stack([voxels, voxels * 0], -1), brain, affine),
        "r04_nan": (np.where(real > real.max() / 2, np.nan, real), brain, affine),
        "r09_empty_mask": (voxels, brain * 0, affine),
        "r10_other_grid": (voxels, brain.repeat(2, 0).repeat(2, 1), fine),
        "r21_ct": ((voxels.astype(np.int32) * 4 - 1000).astype(np.int16), brain, affine),
    }
    for name, (values, mask, grid) in files.items():
        image(values, affine).to_filename(folder / f"{name}.nii.gz")
        image(mask, grid).to_filename(masks / f"{name}.nii.gz")


def write_as_is(path: Path, header: nib.Nifti1Header, voxels: np.ndarray, **fields: object) -> None:
    """Write a header that nibabel itself would mend, with these fields."""
    header = header.copy()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + bytes(4) + voxels.tobytes("F"))
