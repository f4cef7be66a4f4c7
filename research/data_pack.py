"""The data pack: its private columns, and data lists of it that a training takes as ``--data_list``.

    python -m research.data_pack volumes --dataset_dir ../shared/data --output pack_volumes.json
    python -m research.data_pack cases --dataset_dir ../shared/data --output pack_cases.json

participants.tsv of the pack tells how sharp each volume is across its slices (``throughplane_sharpness``, 1:
isotropic, below 0.3: thick slices), how far each contrast lies off the subject's T1w (``residual_shift_mm``)
and which ``split`` a subject is of. Those of split "test" are listed under "test", which no training reads.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from monai_diffens.contrasts import CONTRASTS
from monai_diffens.data.training_volumes import (
    SECTIONS,
    TEXT_KEYS,
    participants,
    training_cases,
)
from monai_diffens.files import whole_or_absent
from monai_diffens.transforms.augmentation import SHARP_PLANE_KEY
from monai_diffens.transforms.conditions import THICK_KEY

# acquired in other slices than axial ones
SLICED = {"sub-tcga12_T1w": "sagittal", "sub-tcga13_ce-gadolinium_T1w": "coronal"}
TRAINING_SHARPNESS, SHARPNESS = 0.6, 0.5  # least of a volume that is ground truth along every axis


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a data list.

    Raises:
        SystemExit: with one line, when the folder lists nothing that serves.
    """
    parser = argparse.ArgumentParser(
        prog="python -m research.data_pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=("volumes", "cases"), help="of super-resolution, or of translation")
    parser.add_argument("--dataset_dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, required=True, help="the JSON file")
    parser.add_argument(
        "--min_sharpness",
        type=float,
        default=TRAINING_SHARPNESS,
        help="training volumes below it were acquired in thick slices; default: %(default)s",
    )
    parser.add_argument("--target", default="FLAIR", help="every case to validate on has it")
    options = parser.parse_args(arguments)
    try:
        if options.kind == "volumes":
            lists = {
                split: pack_volumes(options.dataset_dir, split, options.min_sharpness) for split in SECTIONS
            }
        else:
            lists = {
                split: aligned_subjects(
                    options.dataset_dir, split, None if split == "train" else options.target
                )
                for split in SECTIONS
            }
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    write_list(lists, options.output)
    print(", ".join(f"{SECTIONS[split]}: {len(items)}" for split, items in lists.items()), options.output)


def write_list(lists: dict[str, list[dict[str, str]]], path: Path) -> None:
    """Write a data list; paths in it are relative to its folder.

    Args:
        lists: split -> items.
        path: of the JSON file.
    """
    folder = path.absolute().parent
    content = {
        SECTIONS[split]: [
            {
                key: value if key in TEXT_KEYS else os.path.relpath(value, folder)
                for key, value in item.items()
            }
            for item in items
        ]
        for split, items in lists.items()
    }
    with whole_or_absent(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def pack_volumes(
    dataset_dir: str | Path, split: str, min_sharpness: float = SHARPNESS
) -> list[dict[str, str]]:
    """Volumes of a split for super-resolution: ground truth along every axis, then those of thick slices.

    Only to train on are there thick slices, and a threshold other than 0.5: what is measured stays the same.
    """
    if split != "train":
        return sharp_volumes(dataset_dir, split)
    sharp = sharp_volumes(dataset_dir, split, min_sharpness=min_sharpness)
    return sharp + thick_volumes(dataset_dir, split, min_sharpness=min_sharpness)


def cases_to_train_on(
    dataset_dir: str | Path, split: str, data_list: str | Path | None, target: str = "FLAIR"
) -> list[dict[str, str]]:
    """Cases with the target, from a data list where there is one, else from the pack."""
    if data_list is not None:
        return training_cases(dataset_dir, split, data_list, target)
    return aligned_subjects(dataset_dir, split, target)


def contrast_path(dataset_dir: str | Path, subject: str, contrast: str) -> Path:
    """Path of one contrast of one subject."""
    return Path(dataset_dir) / subject / "anat" / f"{subject}_{contrast}.nii.gz"


def label_path(dataset_dir: str | Path, subject: str) -> Path | None:
    """Path of a subject's lesion or tumour label map; None where it has none."""
    folder = Path(dataset_dir) / "derivatives" / "labels" / subject / "anat"
    return next(iter(sorted(folder.glob(f"{subject}_desc-*_dseg.nii.gz"))), None)


def labelled_volumes(items: Sequence[dict[str, str]], dataset_dir: str | Path) -> list[dict[str, str]]:
    """The items of :func:`sharp_volumes` whose subject has a label map, with its path at ``lesion``."""
    found = ((item, label_path(dataset_dir, item["subject"])) for item in items)
    return [item | {"lesion": str(path)} for item, path in found if path is not None]


def sharp_volumes(
    dataset_dir: str | Path,
    split: str,
    contrasts: Sequence[str] = CONTRASTS,
    min_sharpness: float = 0.5,
) -> list[dict[str, str]]:
    """Volumes that are ground truth for super-resolution along every axis.

    A scan acquired in thick slices and interpolated to 1 mm teaches a network to leave blur in place;
    column ``throughplane_sharpness`` tells them apart (1: isotropic, below 0.3: thick slices).

    Args:
        dataset_dir: BIDS folder.
        split: value of column ``split``: train, val or test.
        contrasts: contrasts to list.
        min_sharpness: volumes below it are left out.

    Returns:
        Items with ``label`` (path), ``case`` (name), ``subject`` and ``contrast``.

    Raises:
        ValueError: when nothing is left.
    """
    every = _volumes(dataset_dir, split, contrasts)
    items = [item for item, sharpness in every if sharpness >= min_sharpness]
    if not items:
        raise ValueError(
            f"{dataset_dir}: no {split} volume of {', '.join(contrasts)} reaches {min_sharpness}"
        )
    return items


def sharpest_volumes(
    dataset_dir: str | Path, split: str, contrasts: Sequence[str] = CONTRASTS
) -> list[dict[str, str]]:
    """One volume of each subject of a split, its sharpest across slices: items of :func:`sharp_volumes`."""
    best: dict[str, tuple[dict[str, str], float]] = {}
    for item, sharpness in _volumes(dataset_dir, split, contrasts):
        if sharpness > best.get(item["subject"], (item, 0.0))[1]:
            best[item["subject"]] = item, sharpness
    return [item for item, _ in best.values()]


def thick_volumes(dataset_dir: str | Path, split: str, min_sharpness: float = 0.5) -> list[dict[str, str]]:
    """Volumes that :func:`sharp_volumes` leaves out as blurred; their slices are sharp as slices.

    Args: those of :func:`sharp_volumes`.

    Returns:
        Items as there, with ``sharp_plane``.
    """
    every = _volumes(dataset_dir, split, CONTRASTS)
    return [
        item | {SHARP_PLANE_KEY: SLICED.get(item["case"], "axial")}
        for item, sharpness in every
        if 0 < sharpness < min_sharpness
    ]


def _volumes(
    dataset_dir: str | Path, split: str, contrasts: Sequence[str]
) -> Iterator[tuple[dict[str, str], float]]:
    """A split's volumes, with their ``throughplane_sharpness``; 0 where it is not known."""
    for row in participants(dataset_dir):
        if row["split"] != split:
            continue
        sharpness = dict(re.findall(r"(\S+)=(\S+)", row["throughplane_sharpness"]))
        subject = row["participant_id"]
        for contrast in contrasts:
            path = contrast_path(dataset_dir, subject, contrast)
            if path.is_file():
                item = {"label": str(path), "case": f"{subject}_{contrast}", "subject": subject}
                yield item | {"contrast": contrast}, float(sharpness.get(contrast, 0))


def aligned_subjects(
    dataset_dir: str | Path,
    split: str,
    target: str | None = "FLAIR",
    max_shift_mm: float = 0.9,
    min_sharpness: float = 0.5,
) -> list[dict[str, str]]:
    """Subjects whose contrasts lie on each other voxel by voxel.

    Column ``residual_shift_mm`` tells how far a contrast is off the subject's T1w; one that is further off
    than ``max_shift_mm`` would teach a network to displace, and is left out.

    Args:
        dataset_dir: BIDS folder.
        split: value of column ``split``.
        target: contrast to synthesise; a subject without it is left out. Any contrast where None.
        max_shift_mm: largest shift, in mm.
        min_sharpness: contrasts below it were acquired in thick slices.

    Returns:
        Items with a path for each contrast, the target among them, ``case`` (the subject), ``thick``, the
        names of the contrasts acquired in thick slices with their planes, "T2w=axial T1w=sagittal", and
        ``lesions``, the path of its labels, where ``derivatives/labels`` has some.

    Raises:
        ValueError: when nothing is left.
    """
    items = []
    for row in participants(dataset_dir):
        subject = row["participant_id"]
        shifts = dict(re.findall(r"(\S+)=(\S+)", row.get("residual_shift_mm", "")))
        paths = {
            contrast: contrast_path(dataset_dir, subject, contrast)
            for contrast in CONTRASTS
            if float(shifts.get(contrast, 0)) <= max_shift_mm
        }
        item = {contrast: str(path) for contrast, path in paths.items() if path.is_file()}
        labels = sorted(Path(dataset_dir).glob(f"derivatives/labels/{subject}/anat/*_dseg.nii.gz"))
        sharpness = dict(re.findall(r"(\S+)=(\S+)", row.get("throughplane_sharpness", "")))
        planes = {name: SLICED.get(f"{subject}_{name}", "axial") for name in item}
        thick = " ".join(
            f"{name}={plane}"
            for name, plane in planes.items()
            if float(sharpness.get(name, 0)) < min_sharpness
        )
        if row["split"] == split and (target is None or target in item) and len(item) > 1:
            item |= {"lesions": str(labels[0])} if labels else {}
            items.append(item | {"case": subject, THICK_KEY: thick})
    if not items:
        wanted = target or "contrasts"
        raise ValueError(f"{dataset_dir}: no {split} subject has {wanted} and a contrast aligned with it")
    return items


if __name__ == "__main__":
    main()
