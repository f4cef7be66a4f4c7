"""What the MONAI Deploy application promises, shown on a real release zip: `make deploy-test`.

Packs the bundle, serves the zip on loopback, downloads it by MONAI's command, and runs the application in an
environment without this package. Prints a line for everything that held, and stops at the first that did not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pydicom

ROOT = Path(__file__).parents[2]
APP = ROOT / "monaideploy_app" / "app.py"
BUNDLE = "diffensembler_sr"
sys.path += [
    str(ROOT / part) for part in ("tests", "tests/bundles", "monailabel_app/tests", "monaideploy_app")
]

import mr_series  # noqa: E402
from proof import proved  # noqa: E402
from release_server import serve  # noqa: E402
from scans import THICKNESS, write_studies  # noqa: E402

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def run(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """This environment's Python, from a folder where it finds nothing of this project."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**kept, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )


def download(work: Path) -> Path:
    """Pack the bundle, and fetch it as the manual says; returns its folder."""
    packed = run("-m", "monai_diffens", "pack", ROOT / "bundles" / BUNDLE, cwd=work, PYTHONPATH=str(ROOT))
    proved(packed.stdout.splitlines()[0] if packed.stdout else packed.stderr, packed.returncode == 0)
    (zipped,) = (work / "dist").glob("*.zip")
    with serve(work / "dist", work) as address:
        options = (
            "--name",
            BUNDLE,
            "--url",
            f"{address}/releases/{zipped.name}",
            "--bundle_dir",
            work / "bundles",
        )
        done = run("-m", "monai.bundle", "download", *options, cwd=work)
    proved("downloaded over HTTP by monai.bundle", done.returncode == 0)
    lacking = importlib.util.find_spec("monai_diffens") is None
    proved("this environment has no monai_diffens; the bundle brings it", lacking)
    return work / "bundles" / BUNDLE


def restore(bundle: Path, source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """The application, as docs/clinical.md has it."""
    return run(APP, "--model", bundle, "--input", source, "--output", output, cwd=output.parent)


def check_nifti(bundle: Path, studies: Path, work: Path) -> None:
    """Grid, place, type and voxels of a result."""
    source = studies / "sub-01_T1w.nii.gz"
    done = restore(bundle, source, work / "nifti")
    proved(f"NIfTI: {told(done)}", done.returncode == 0)
    scan, result = nib.load(source), nib.load(work / "nifti" / "sub-01_T1w_sr.nii.gz")
    voxels = np.asarray(result.dataobj)
    proved(
        f"NIfTI: {scan.shape} became {result.shape}, of 1 mm in every direction",
        result.shape == (*scan.shape[:2], scan.shape[2] * THICKNESS)
        and np.allclose(nib.affines.voxel_sizes(result.affine), 1, atol=1e-4),
    )
    shift = np.abs(corners(scan) - corners(result)).max()
    proved(f"NIfTI: over the same place, corners within {shift:.2g} mm", shift < 1e-3)
    proved("NIfTI: float32 with fractions", voxels.dtype == np.float32 and bool((voxels % 1 != 0).any()))
    facts = json.loads((work / "nifti" / "sub-01_T1w_sr.json").read_text())
    proved(
        "NIfTI: marked as synthetic, with parameters and warnings beside it",
        b"synthetic" in bytes(result.header["descrip"])
        and facts["Synthetic"] is True
        and facts["Sampling"]["num_steps"] == 1
        and any("in training" in line for line in facts["Warnings"]),
    )
    configuration = ("--bundle_root", bundle, "--config_file", bundle / "configs" / "inference.json")
    options = ("--input", source, "--output_dir", work / "command")
    run("-m", "monai.bundle", "run", "inference", *configuration, *options, cwd=work)
    other = nib.load(work / "command" / "sub-01_T1w_sr.nii.gz")
    proved(
        "NIfTI: the same voxels and place as by the bundle's command line",
        np.array_equal(voxels, np.asarray(other.dataobj)) and np.array_equal(result.affine, other.affine),
    )


def check_dicom(bundle: Path, work: Path) -> None:
    """A series whose pixels are not square, through to the derived series."""
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(z=0.2, x=0.35) * [1.25, 1, 5]
    affine[:3, 3] = (-21, 14, 33)
    scan = mr_series.thick_head(affine, (32, 40, 8))
    slices = mr_series.series(scan)
    done = restore(bundle, mr_series.write(slices, work / "series"), work / "dicom")
    proved(f"DICOM: {told(done)}", done.returncode == 0)
    (folder,) = (path for path in (work / "dicom").iterdir() if path.is_dir())
    result = nib.load(work / "dicom" / f"{folder.name}.nii.gz")
    shift = np.abs(middle(scan) - middle(result)).max()
    sizes = nib.affines.voxel_sizes(result.affine)
    proved(
        f"DICOM: {scan.shape} of 1.25 x 1 x 5 mm became {result.shape} of 1 mm, middle within {shift:.2g} mm",
        result.shape == (40, 40, 40) and np.allclose(sizes, 1, atol=1e-4) and shift < 1e-3,
    )
    series = read_by_itk(folder)
    proved(
        "DICOM: the derived series lies in the same place, as ITK reads it",
        np.allclose(ras_affine(series), result.affine, atol=1e-3),
    )
    proved(
        "DICOM: its values are those of the NIfTI file, rounded",
        np.abs(itk.array_from_image(series).T - result.get_fdata()).max() < 0.51,
    )
    one = pydicom.dcmread(next(folder.iterdir()))
    proved(
        f"DICOM: in the source's study, '{one.SeriesDescription}'",
        one.StudyInstanceUID == slices[0].StudyInstanceUID
        and one.SeriesInstanceUID != slices[0].SeriesInstanceUID
        and "synthetic" in one.SeriesDescription,
    )
    spoken = done.stdout + done.stderr
    proved(
        "DICOM: no name or number of the patient is shown", not any(n in spoken for n in ("ller", "PID-4711"))
    )


def check_refusals(bundle: Path, studies: Path, work: Path) -> None:
    """What cannot be worked on ends with one line, status 1 and no result."""
    done = restore(bundle, studies / "cut_T1w.nii.gz", work / "none")
    refused("half a file", done, "truncated or corrupt", work / "none")
    done = restore(bundle, studies, work / "none")
    refused("several scans", done, "takes one at a time", work / "none")
    slices = mr_series.series(mr_series.thick_head())
    done = restore(bundle, mr_series.write(slices[:3] + slices[4:], work / "gap"), work / "none")
    refused("a series with a gap", done, "slices are missing", work / "none")
    done = restore(bundle, studies / "sub-02_T1w.nii.gz", work / "none")
    proved(
        "a scan that is sharp already: nothing to do, status 0",
        done.returncode == 0 and "1 with nothing to do" in done.stdout,
    )
    done = restore(ROOT / "bundles" / BUNDLE, studies / "sub-01_T1w.nii.gz", work / "none")
    refused("a bundle that is no release", done, "brings no package monai_diffens", work / "none")
    several = work / "several" / BUNDLE
    shutil.copytree(bundle, several)
    config = several / "configs" / "inference.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "contrasts": ["T1w", "T2w"]}))
    (several / "manifest.sha256").unlink()
    done = restore(several, studies / "sub-01_T1w.nii.gz", work / "none")
    refused("a bundle of several contrasts", done, "this application loads one volume", work / "none")
    copy = work / "changed" / BUNDLE
    shutil.copytree(bundle, copy)
    weights = copy / "models" / "model.pt"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    done = restore(copy, studies / "sub-01_T1w.nii.gz", work / "none")
    refused("changed weights", done, "not as released, first: models/model.pt", work / "none")


def check_images() -> None:
    """What the operators after this one are given."""
    from monai.data import MetaTensor
    from operators import as_image, as_volume

    affine = nib.affines.from_matvec(
        nib.eulerangles.euler2mat(0.1, 0.2, 0.3) @ np.diag([-2.0, 3, 4]), (5, 6, 7)
    )
    volume = MetaTensor(np.random.default_rng(0).random((1, 5, 6, 7), np.float32), affine=affine)
    image = as_image(volume, {"case": "sub-01"})
    facts = image.metadata()
    proved(
        "Image: float32, slice by row by column, spacings and affine those of the volume",
        image.asnumpy().shape == (7, 6, 5)
        and image.asnumpy().dtype == np.float32
        and np.allclose([facts[f"{name}_pixel_spacing"] for name in ("col", "row", "depth")], [2, 3, 4])
        and np.allclose(facts["nifti_affine_transform"], affine),
    )
    back = as_volume(image)
    proved(
        "Image: back to the same volume", bool((back == volume).all()) and np.allclose(back.affine, affine)
    )


def refused(what: str, done: subprocess.CompletedProcess[str], line: str, output: Path) -> None:
    """Prove it."""
    lines = [one for one in (done.stdout + done.stderr).splitlines() if line in one]
    left = list(output.glob("*_sr*")) if output.is_dir() else []
    shown = lines[0] if lines else done.stderr
    proved(f"refused: {what} ({shown})", done.returncode == 1 and len(lines) == 1 and not left)
    proved(f"refused: {what}: no traceback", "Traceback" not in done.stderr)


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The line with which a run ended, or all of a failed one."""
    lines = [line for line in done.stdout.splitlines() if " done, " in line]
    return lines[0] if done.returncode == 0 and lines else done.stdout + done.stderr


def corners(image: nib.Nifti1Image) -> np.ndarray:
    """Of the field of view, in mm."""
    ends = np.meshgrid(*[(-0.5, size - 0.5) for size in image.shape], indexing="ij")
    return nib.affines.apply_affine(image.affine, np.stack(ends, -1).reshape(-1, 3))


def middle(image: nib.Nifti1Image) -> np.ndarray:
    """Of the field of view, in mm."""
    return nib.affines.apply_affine(image.affine, (np.array(image.shape) - 1) / 2)


def read_by_itk(folder: Path) -> itk.Image:
    """A series."""
    names = itk.GDCMSeriesFileNames.New()
    names.SetDirectory(str(folder))
    (uid,) = names.GetSeriesUIDs()
    return itk.imread(list(names.GetFileNames(uid)))


def ras_affine(image: itk.Image) -> np.ndarray:
    """Voxel index to RAS+ mm."""
    axes = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    return TO_RAS @ nib.affines.from_matvec(axes, np.array(image.GetOrigin()))


def main() -> None:
    """Run everything in a folder of its own, which is removed."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_studies(work / "studies")
        bundle = download(work)
        check_images()
        check_nifti(bundle, work / "studies", work)
        check_dicom(bundle, work)
        check_refusals(bundle, work / "studies", work)
    print(f"all held, in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
