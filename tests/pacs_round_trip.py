"""Through a real PACS: stored by C-STORE, pulled by DICOMweb, restored, stored back by STOW-RS, re-read.

Run by ``make pacs-test``. The scan is the template brain that nilearn ships, sliced thick and lying askew.
Inside a network namespace of its own where the system allows one, so that nothing but loopback exists.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import itk
import mr_series
import nibabel as nib
import numpy as np
import pydicom
from monai.data import MetaTensor
from pacs_server import Pacs

from monai_diffens.demo import FACTOR, load_truth
from monai_diffens.transforms.thick_slices import measurement_for

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "bundles" / "diffensembler_sr"
CROP = 64
ALONE = "PACS_TEST_ALONE"


def main() -> None:
    """Make the round trip; every line printed was checked."""
    _leave_the_network()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        scan = thick_scan()
        slices = mr_series.series(scan)
        study, source = slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID
        with Pacs(work / "pacs") as pacs:
            pacs.store(mr_series.write(slices, work / "scanner"))
            (found,) = pacs.query(f"studies/{study}/series", Modality="MR")
            check(
                value(found, "0020000E") == source, f"C-STORE: {len(slices)} images stored, found by QIDO-RS"
            )
            pulled = pacs.retrieve(study, source, work / "in" / "pulled")
            check(len(list(pulled.iterdir())) == len(slices), "WADO-RS: all images pulled")

            told = restore(work / "in", work / "out")
            result = work / "out" / f"{mr_series.result_name(slices)}_sr"
            files = sorted(result.iterdir())
            names = ("ller", slices[0].PatientID, slices[0].AccessionNumber, str(work))
            leaked = [n for n in names if n in told + " ".join(p.name for p in (work / "out").rglob("*"))]
            check(
                not leaked, f"bundle run: {len(files)} derived images; no name or number of the patient shown"
            )
            checked = [conformance(file) for file in (files[0], files[-1])]
            check(not any(checked), "dciodvfy: no error, no warning")

            pacs.send(files)
            series = {value(one, "0020000E"): one for one in pacs.query(f"studies/{study}/series")}
            derived = pydicom.dcmread(files[0]).SeriesInstanceUID
            check(
                set(series) == {source, derived}, "STOW-RS: the derived series is in the study of its source"
            )
            (one,) = pacs.query(f"studies/{study}/series", SeriesInstanceUID=derived, includefield="0008103E")
            check("synthetic" in value(one, "0008103E"), f"QIDO-RS: found as '{value(one, '0008103E')}'")
            stored = pacs.retrieve(study, derived, work / "back")
        compare(stored, work / "out" / f"{mr_series.result_name(slices)}_sr.nii.gz", scan, work / "scanner")
    print("pacs-test: passed; Orthanc is stopped, nothing is left behind")


def check(holds: bool, what: str) -> None:
    """Print what was proven, or stop."""
    if not holds:
        raise SystemExit(f"pacs-test: FAILED: {what}")
    print(f"pacs-test: {what}", flush=True)


def thick_scan() -> nib.Nifti1Image:
    """The template's central 64 mm with thick slices, turned against the scanner's axes."""
    truth, _ = load_truth(CROP)
    thick = measurement_for(tuple(truth.shape), (1, 1, FACTOR))(MetaTensor(truth[None]))
    voxels = np.asarray(thick[0]).clip(0)
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(z=0.15, x=-0.3) * [1, 1, FACTOR]
    affine[:3, 3] = (-30, 12, 40)
    return nib.Nifti1Image((1000 * voxels / voxels.max()).round(), affine)


def restore(source: Path, output: Path) -> str:
    """The command line that users type; returns what it printed."""
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", "--bundle_root", str(BUNDLE)]
    command += ["--config_file", str(BUNDLE / "configs" / "inference.json")]
    command += ["--input", str(source), "--output_dir", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    told = done.stdout + done.stderr
    if done.returncode:
        raise SystemExit(f"pacs-test: FAILED: the bundle ended with {done.returncode}:\n{told}")
    return told


def conformance(file: Path) -> list[str]:
    """What dciodvfy has against a file."""
    if shutil.which("dciodvfy") is None:
        raise SystemExit("not installed: dciodvfy; run .ci/install-dicom-tools")
    told = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, check=False).stderr
    return [line for line in told.splitlines() if line != "MRImage"]


def compare(stored: Path, nifti: Path, scan: nib.Nifti1Image, scanner: Path) -> None:
    """Geometry and values of what came back from the PACS, as ITK reads them."""
    back, first = read_by_itk(stored), read_by_itk(scanner)
    result = nib.load(nifti)
    affine = ras_affine(back)
    apart = np.abs(affine - result.affine).max()
    check(apart < 1e-3, f"ITK: affine equal to the NIfTI result's, {apart:.1e} mm apart at most")
    voxels = np.asarray(itk.array_from_image(back)).T
    off = np.abs(voxels - result.get_fdata()).max()
    check(off <= 0.5 + 1e-3, f"ITK: values equal but for rounding to integers, {off:.2f} off at most")
    boxes = [box(ras_affine(image), itk.size(image)) for image in (first, back)]
    apart = np.abs(boxes[0] - boxes[1]).max()
    check(apart < 1e-3, f"ITK: the field of view is the source's, corners {apart:.1e} mm apart at most")
    apart = np.abs(ras_affine(first) - scan.affine).max()
    check(apart < 1e-3, f"ITK: the source lies where it was put, {apart:.1e} mm apart at most")


def read_by_itk(folder: Path) -> "itk.Image":
    """The one series in a folder."""
    names = itk.GDCMSeriesFileNames.New()
    names.SetDirectory(str(folder))
    (uid,) = names.GetSeriesUIDs()
    return itk.imread(list(names.GetFileNames(uid)))


def ras_affine(image: "itk.Image") -> np.ndarray:
    """(4, 4), voxel index to RAS+ mm."""
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1, 1, 1]) @ affine


def box(affine: np.ndarray, size: "itk.Size") -> np.ndarray:
    """(2, 3) mm of two opposite corners of the field of view."""
    return nib.affines.apply_affine(affine, [[-0.5] * 3, np.array(list(size)) - 0.5])


def value(dataset: dict, tag: str) -> str:
    """Value of an attribute in DICOM JSON."""
    return str(dataset[tag]["Value"][0])


def _leave_the_network() -> None:
    """Start over in a network namespace that holds loopback alone; go on as we are where that is refused."""
    unshare = ["unshare", "--net", "--map-root-user"]
    if ALONE in os.environ:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:  # SIOCSIFFLAGS: loopback up
            fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", 1))
        check(True, "inside a network namespace with nothing but loopback")
    elif shutil.which("unshare") and subprocess.run([*unshare, "true"], capture_output=True).returncode == 0:
        os.execvpe("unshare", [*unshare, sys.executable, *sys.argv], {**os.environ, ALONE: "1"})
    else:
        print("pacs-test: no network namespace here; Orthanc takes requests from loopback alone", flush=True)


if __name__ == "__main__":
    main()
