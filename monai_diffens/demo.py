"""``diffens demo``: thick-slice a template brain, restore it with the super-resolution bundle, measure it.

Nothing is downloaded: the brain is the ICBM 152 (2009) T1w template at 1 mm, skull-stripped, in
``template_brain/``.
It is the average of many brains, smoother than a patient's scan, and not among the volumes that the weights
were trained on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_diffens.acquisition.measurement import Measurement
from monai_diffens.bundle.folder import WEIGHTS, read_config
from monai_diffens.files import package_version, sha256_of
from monai_diffens.inference import open_inference, run_inference
from monai_diffens.messages import BundleRejected, InputRejected, is_watched, say, tell
from monai_diffens.metrics import SSIM_RADIUS, checked_volumes, psnr, ssim_map
from monai_diffens.report.picture import foreground_box, three_plane_picture
from monai_diffens.transforms.intensity import foreground_percentile
from monai_diffens.transforms.thick_slices import measurement_for

TEMPLATE = Path(__file__).parent / "template_brain" / "icbm152_t1w.nii.gz"
FACTOR = 5  # 1 mm voxels, 5 mm slices
MNI_SPACE = 4  # NIfTI code: coordinates are MNI152's
TEMPLATE_NOTE = (
    "ICBM 152 T1w template, 1 mm: an average brain, not a patient's scan; not among the training volumes"
)
NOTICE = "Research use only; the result is synthetic."
FILES = {
    "truth": "truth.nii.gz",
    "input": "thick_5mm.nii.gz",
    "result": "thick_5mm_sr.nii.gz",
    "facts": "thick_5mm_sr.json",
    "picture": "comparison.png",
    "figures": "figures.json",
}
HEADINGS = {
    "psnr": "PSNR",
    "psnr_brain": "PSNR brain",
    "ssim": "SSIM",
    "ssim_brain": "SSIM brain",
}


def run(output_dir: Path, bundle_root: Path, num_steps: int | None = None, crop: int | None = None) -> Path:
    """Make the truth and its thick-sliced scan, restore the scan, measure, and write picture and figures.

    Args:
        output_dir: where everything is written; files of an earlier run are replaced.
        bundle_root: folder of the super-resolution bundle.
        num_steps: sampling steps; the bundle's default when None.
        crop: side of a central box to work on instead of the whole brain, in voxels.

    Returns:
        Path of figures.json.

    Raises:
        BundleRejected: the bundle or its weights are missing.
        InputRejected: the restoration failed.
        OSError: a file cannot be written.
    """
    started = time.perf_counter()
    default_steps = read_config(bundle_root)["num_steps"]
    if not (bundle_root / WEIGHTS).is_file():
        raise BundleRejected(say("not_complete", name=bundle_root.name, file=WEIGHTS))
    output_dir.mkdir(parents=True, exist_ok=True)
    truth, affine = load_truth(crop)
    sides = " x ".join(map(str, truth.shape))
    measurement = measurement_for(truth.shape, (1, 1, FACTOR))
    low = measurement(truth)
    paths = {name: output_dir / file for name, file in FILES.items()}
    for path in paths.values():  # should a step fail, no result of an earlier run is left
        path.unlink(missing_ok=True)
    save(truth, affine, paths["truth"], "ICBM 152 2009 T1w, cropped")
    save(low, slice_affine(affine, measurement), paths["input"], "ICBM 152 2009 T1w, 5 mm slices")
    tell(f"{TEMPLATE_NOTE}.\n{sides} voxels of 1 mm, measured as {low.shape[2]} axial slices of 5 mm.")

    seconds = restore(bundle_root, paths["input"], output_dir, num_steps)
    ours = load_result(paths["result"], truth.shape, affine)
    data_range = foreground_percentile(truth)
    volumes = {
        "cubic": measurement.interpolate(low).clamp(min=0),
        "restored spline": measurement.restore(low).clamp(min=0),
        "ours": ours,
    }
    table = {name: measure(volume, truth, data_range) for name, volume in volumes.items()}
    consistency = float((measurement(ours) - low).abs().mean()) / data_range
    steps = default_steps if num_steps is None else num_steps
    repeated = low.repeat_interleave(FACTOR, dim=2)
    three_plane_picture(
        {"input": repeated.numpy(), "cubic": volumes["cubic"].numpy(), "ours": ours.numpy()},
        truth.numpy(),
        paths["picture"],
        data_range=data_range,
        caption=f"{TEMPLATE_NOTE}.\n"
        f"Input: 5 mm axial slices, each shown {FACTOR} times; ours: num_steps {steps}. {NOTICE}",
    )
    total = time.perf_counter() - started
    facts = {
        "source": TEMPLATE_NOTE,
        "notice": NOTICE,
        "version": package_version(),
        "weights_sha256": sha256_of(bundle_root / WEIGHTS),
        "shape": list(truth.shape),
        "num_steps": steps,
        "data_range": data_range,
        "metrics": table,
        "consistency": consistency,
        "device": "cuda" if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads",
        "seconds_bundle": round(seconds, 1),
        "seconds_after_startup": round(total, 1),
    }
    paths["figures"].write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    tell(
        f"\n{format_table(table)}\n\n"
        f"PSNR in dB. Data range: {data_range:.4g}, the truth's 99.5th foreground percentile.\n"
        "Brain: the voxels where the truth is above 0; the other figures are of the whole box.\n"
        "Restored spline: the linear estimate that the bundle starts from.\n"
        f"Consistency, |ours sliced thick again - input|: {consistency:.3%} of the range on average.\n"
        f"The bundle ran {seconds:.0f} s (num_steps {steps}, {facts['device']}); "
        f"everything after start-up took {total:.0f} s."
    )
    tell("\n  ".join(["Written:", *map(str, paths.values())]))
    tell(f"Before and after in a browser: diffens view {output_dir}")
    tell(NOTICE)
    return paths["figures"]


def restore(bundle_root: Path, scan: Path, output_dir: Path, num_steps: int | None = None) -> float:
    """Run the bundle as a user does and return the seconds it took.

    Raises:
        InputRejected: it did not restore the scan.
    """
    options: dict[str, Any] = {"input": str(scan.resolve()), "output_dir": str(output_dir.resolve())}
    options |= {"overwrite": True} | ({} if num_steps is None else {"num_steps": num_steps})
    started = time.perf_counter()
    cases, status = run_inference(open_inference(bundle_root, options), bar=is_watched(sys.stderr))
    if status:
        raise InputRejected("; ".join(cases.failures.values()) or say("no_result", name=scan.name))
    return time.perf_counter() - started


def load_result(path: Path, shape: Sequence[int], affine: NDArray[np.float64]) -> Tensor:
    """The bundle's result (X, Y, Z), checked to lie on the truth's grid.

    Raises:
        ValueError: it lies on another grid.
    """
    image = nib.Nifti1Image.from_filename(path)
    if image.shape != tuple(shape) or not np.allclose(image.affine, affine, atol=1e-3):
        raise ValueError(f"{path.name}: shape {image.shape}, the truth has {tuple(shape)}, or another affine")
    return torch.from_numpy(image.get_fdata(dtype=np.float32))


def measure(volume: Tensor, truth: Tensor, data_range: float) -> dict[str, float]:
    """PSNR in dB and SSIM of a volume (X, Y, Z), over the whole box and over the voxels above 0 of its truth.

    Raises:
        ValueError: shapes differ, or a value is NaN or infinite.
    """
    volume, truth, brain = checked_volumes(volume, truth, truth > 0)
    inside = torch.where(brain, volume, truth)  # the background has no part in the brain's windows
    whole_windows = (slice(SSIM_RADIUS, -SSIM_RADIUS),) * 3
    figures = {
        "psnr": psnr(volume, truth, data_range),
        "psnr_brain": psnr(volume[brain], truth[brain], data_range),
        "ssim": ssim_map(volume, truth, data_range)[whole_windows].mean(),
        "ssim_brain": ssim_map(inside, truth, data_range)[brain].mean(),
    }
    return {name: float(value) for name, value in figures.items()}


def format_table(table: Mapping[str, Mapping[str, float]]) -> str:
    """Aligned text: a row for each method, and what ours gains or loses on cubic."""
    rows = {name: [f"{values[key]:.3f}" for key in HEADINGS] for name, values in table.items()}
    rows["ours - cubic"] = [f"{table['ours'][key] - table['cubic'][key]:+.3f}" for key in HEADINGS]
    first = max(map(len, rows))
    widths = [max(len(heading), len("-00.000")) for heading in HEADINGS.values()]
    return "\n".join(
        "  ".join([name.ljust(first), *map(str.rjust, cells, widths)])
        for name, cells in {"": list(HEADINGS.values()), **rows}.items()
    )


def load_truth(crop: int | None = None) -> tuple[Tensor, NDArray[np.float64]]:
    """The template, cropped to its foreground, with a whole number of thick slices.

    Args:
        crop: side of a central box to keep, in voxels; the whole foreground when None.

    Returns:
        (X, Y, Z) volume, RAS, 0 to 1, and its affine in mm.
    """
    template = nib.Nifti1Image.from_filename(TEMPLATE)
    volume = np.asarray(template.get_fdata(dtype=np.float32))
    low, high = foreground_box(volume)
    sides = high + 1 - low
    if crop is not None:
        low = low + np.maximum(sides - crop, 0) // 2
        sides = np.minimum(sides, crop)
        sides[2] -= sides[2] % FACTOR
    sides[2] += -sides[2] % FACTOR  # the file has empty space above the head
    box = tuple(slice(int(start), int(start + side)) for start, side in zip(low, sides, strict=True))
    truth = torch.from_numpy(np.ascontiguousarray(volume[box]))
    return truth, np.asarray(template.affine @ nib.affines.from_matvec(np.eye(3), low))


def thick_scan(crop: int | None = None) -> nib.Nifti1Image:
    """The template as a scan of 5 mm axial slices, for examples; ``crop`` as of :func:`load_truth`."""
    truth, affine = load_truth(crop)
    measurement = measurement_for(truth.shape, (1, 1, FACTOR))
    image = nib.Nifti1Image(measurement(truth).numpy(), slice_affine(affine, measurement))
    image.header.set_xyzt_units("mm")
    return image


def slice_affine(affine: NDArray[np.float64], measurement: Measurement) -> NDArray[np.float64]:
    """Affine of the thick slices: slice k lies where the mean of the voxels that it covers lies."""
    to_fine = np.eye(4)
    for index, axis in enumerate(measurement.axes):
        if axis is not None:
            to_fine[index, index], to_fine[index, 3] = axis.factor, axis.slice_centres[0]
    return affine @ to_fine


def save(volume: Tensor, affine: NDArray[np.float64], path: Path, description: str) -> None:
    """Write a volume (X, Y, Z) in MNI space."""
    image = nib.Nifti1Image(volume.numpy(), affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()[:79]
    image.set_sform(affine, MNI_SPACE)
    image.set_qform(affine, MNI_SPACE)
    nib.save(image, path)
