"""Look at everything a training will read, before it does: what is wrong is named, what serves is listed."""

from __future__ import annotations

import csv
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_diffens.acquisition.slicing import PLANES, plane_axis
from monai_diffens.contrasts import CONTRASTS, TARGET
from monai_diffens.data.training_volumes import (
    SECTIONS,
    Item,
    bids_cases,
    bids_volumes,
    listed_items,
    listed_splits,
)
from monai_diffens.files import sha256_of
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.augmentation import SHARP_PLANE_KEY
from monai_diffens.transforms.input_gate import CheckedVolume, check_volume
from monai_diffens.transforms.nifti_file import open_nifti

SPACING_TOLERANCE = 0.05
SAME_PLACE_MM = 0.01

# of an item: further columns of its row, what its entry in the list holds further, why it is left out
Look = Callable[[Item, Path], tuple[dict[str, Any], Item, str]]


def prepare_volumes(
    dataset_dir: str | Path,
    output_dir: str | Path,
    data_list: str | Path | None = None,
    spacing: float = 1.0,
    min_sharpness: float = 0.5,
) -> Path:
    """Check every volume with the input gate, write ``prepare.csv`` and ``data_list.json``.

    Volumes blurred along an axis would teach a network to leave blur in place: they are listed for slices
    across that axis alone, and it is said so. An error: files that the gate rejects, another voxel size, a
    subject or a file in two splits.

    Args:
        dataset_dir: BIDS folder; with a column ``split`` in participants.tsv, else every fifth subject is
            for validation.
        output_dir: receives the two files.
        data_list: looked at instead of the folder, see
            :func:`~monai_diffens.data.training_volumes.training_volumes`.
        spacing: voxel size of ground truth in mm.
        min_sharpness: see :func:`sharpness_across_slices`.

    Returns:
        Path of the data list, to be given as ``--data_list``.

    Raises:
        InputRejected: after the summary, when there was an error or nothing serves for training.
    """

    def look(item: Item, output: Path) -> tuple[dict[str, Any], Item, str]:
        row, plane = _look_at(Path(item["label"]), spacing)
        listed = {**item, "label": os.path.relpath(item["label"], output)}
        if row["sharpness"] >= min_sharpness:
            return row, listed, ""
        blurred = say("blurred", plane=plane, value=row["sharpness"], least=min_sharpness)
        return row | {"verdict": blurred}, {**listed, SHARP_PLANE_KEY: plane}, ""

    items = bids_volumes(dataset_dir) if data_list is None else _listed(data_list, "label")
    columns = {"shape": "", "spacing_mm": "", "sharpness": ""}
    return _prepare([(*each, columns, [each[1]["label"]]) for each in items], Path(output_dir), look)


def prepare_cases(
    dataset_dir: str | Path,
    output_dir: str | Path,
    data_list: str | Path | None = None,
    target: str = TARGET,
    spacing: float = 1.0,
) -> Path:
    """Check every contrast of every case with the input gate, write ``prepare.csv`` and ``data_list.json``.

    Left out, and said so: cases without the target or with nothing beside it. An error: files that the gate
    rejects, another voxel size, contrasts on another grid than the target, a subject or a file in two splits.
    How well contrasts are registered to each other is not measured.

    Args:
        dataset_dir: as of :func:`prepare_volumes`.
        output_dir: receives the two files.
        data_list: looked at instead of the folder, see
            :func:`~monai_diffens.data.training_volumes.training_cases`.
        target: contrast to synthesise.
        spacing: voxel size of ground truth in mm.

    Returns:
        Path of the data list, to be given as ``--data_list``.

    Raises:
        InputRejected: after the summary, when there was an error or nothing serves for training.
    """

    def look(item: Item, output: Path) -> tuple[dict[str, Any], Item, str]:
        paths = {contrast: item[contrast] for contrast in CONTRASTS if contrast in item}
        checked = {contrast: check_target(Path(path), spacing) for contrast, path in paths.items()}
        listed = {key: item[key] for key in ("case", "subject")}
        listed |= {contrast: os.path.relpath(path, output) for contrast, path in paths.items()}
        if target not in paths or len(paths) < 2:
            return {}, listed, say("no_target", target=target)
        _check_grids(checked, target)
        return {}, listed, ""

    items = []
    for split, item in bids_cases(dataset_dir) if data_list is None else _listed(data_list, target):
        there = [contrast for contrast in CONTRASTS if contrast in item]
        items.append((split, item, {"contrasts": " ".join(there)}, [item[name] for name in there]))
    return _prepare(items, Path(output_dir), look)


def _prepare(
    items: Sequence[tuple[str, Item, dict[str, Any], Sequence[str]]], output: Path, look: Look
) -> Path:
    """Look at each item, of which split, columns and files come with it, and write what was found."""
    output.mkdir(parents=True, exist_ok=True)
    errors = leaks((split, item, files) for split, item, _, files in items)
    rows, lists = [], {section: list[Item]() for section in SECTIONS.values()}
    for split, item, columns, _ in items:
        row = {"case": item["case"], "subject": item["subject"], "split": split, **columns}
        try:
            found, listed, left_out = look(item, output)
            row |= {"verdict": left_out or "accepted"} | found
            if not left_out:
                lists[SECTIONS[split]].append(listed)
        except InputRejected as error:
            row["verdict"] = str(error)
            errors.append(str(error))
        rows.append(row)
    return write_lists(output, rows, lists, errors)


def write_lists(
    output: Path,
    rows: Sequence[Mapping[str, Any]],
    lists: Mapping[str, Sequence[Mapping[str, str]]],
    errors: list[str],
) -> Path:
    """Write ``prepare.csv`` and ``data_list.json``, and print the summary; returns the list's path.

    Training needs volumes to validate on: where none is left for it, a subject's is held out of training.

    Args:
        output: folder for both.
        rows: what was found, each with ``case``, ``split`` and ``verdict``; columns are those of the first.
        lists: section -> items that serve.
        errors: lines on what is wrong.

    Raises:
        InputRejected: there are errors or nothing serves for training.
    """
    with (output / "prepare.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
    lists, notes = hold_out(lists)
    path = output / "data_list.json"
    path.write_text(json.dumps(lists, indent=1) + "\n", encoding="utf-8")
    if not lists["validation"]:
        notes.append(say("nothing_to_validate"))
    for line in [*(f"{row['case']} ({row['split']}): {row['verdict']}" for row in rows), *notes]:
        print(line)
    print(", ".join(f"{section}: {len(listed)}" for section, listed in lists.items()) + f"; list: {path}")
    if all(SHARP_PLANE_KEY in item for item in lists["training"]):
        errors = [*errors, say("nothing_to_train")]
    if errors:
        raise InputRejected("\n".join(errors))
    return path


def hold_out(
    lists: Mapping[str, Sequence[Mapping[str, str]]],
) -> tuple[dict[str, list[Mapping[str, str]]], list[str]]:
    """The lists, with the last subject of ``training`` under ``validation`` where that is empty.

    It is not done where training would be left without a volume that is sharp along every axis.

    Returns:
        The lists, and a line on who was held out.
    """
    held = {section: list(items) for section, items in lists.items()}
    if held["validation"]:
        return held, []
    for subject in reversed(list(dict.fromkeys(item["subject"] for item in held["training"]))):
        kept = [item for item in held["training"] if item["subject"] != subject]
        if any(SHARP_PLANE_KEY not in item for item in kept):
            held["validation"] = [item for item in held["training"] if item["subject"] == subject]
            held["training"] = kept
            return held, [say("held_out", name=subject)]
    return held, []


def sharpness_across_slices(volume: NDArray[Any]) -> float:
    """Detail (see :func:`axis_detail`) of a volume along the blurriest axis over the mean of the others.

    About 1 for isotropic detail, below 0.3 for thick slices interpolated to cubic voxels.
    """
    low, *others = sorted(axis_detail(volume))
    return low / (sum(others) / 2) if sum(others) else 0.0


def axis_detail(volume: NDArray[Any]) -> list[float]:
    """Median absolute second difference of a volume (X, Y, Z) along each axis, over voxels above 0."""
    detail = []
    for axis in range(3):
        moved = np.moveaxis(volume, axis, 0)
        inside = (moved[:-2] > 0) & (moved[1:-1] > 0) & (moved[2:] > 0)
        second = np.abs(moved[:-2] - 2 * moved[1:-1] + moved[2:])[inside]
        detail.append(float(np.median(second)) if second.size else 0.0)
    return detail


def leaks(items: Iterable[tuple[str, Mapping[str, str], Sequence[str]]]) -> list[str]:
    """Lines on subjects in two splits and on files that are there twice.

    Args:
        items: split, item with ``case`` and ``subject``, and its files.
    """
    subjects: dict[str, set[str]] = defaultdict(set)
    files: dict[str, list[str]] = defaultdict(list)
    for split, item, paths in items:
        subjects[item["subject"]].add(split)
        for path in paths:
            files[sha256_of(path)].append(item["case"])
    lines = [
        say("two_splits", name=subject, splits=" and ".join(sorted(splits)))
        for subject, splits in subjects.items()
        if len(splits) > 1
    ]
    return lines + [say("same_file", names=", ".join(names)) for names in files.values() if len(names) > 1]


def check_target(path: Path, spacing: float) -> CheckedVolume:
    """Check a volume with the input gate and its voxels against the target's.

    Raises:
        InputRejected: it cannot be ground truth.
    """
    checked = check_volume(path)
    if any(abs(zoom / spacing - 1) > SPACING_TOLERANCE for zoom in checked.zooms):
        mm = " x ".join(f"{zoom:.3g}" for zoom in checked.zooms)
        raise InputRejected(say("not_at_target", name=path.name, spacing=mm, target=spacing))
    return checked


def _listed(data_list: str | Path, needed: str) -> list[tuple[str, Item]]:
    """Split and item of everything in a data list."""
    splits = listed_splits(data_list)
    return [(split, item) for split in splits for item in listed_items(data_list, split, needed)]


def _look_at(path: Path, spacing: float) -> tuple[dict[str, Any], str]:
    """Columns of a volume's row, and the plane across its blurriest axis."""
    checked = check_target(path, spacing)
    with open_nifti(path) as file:
        stored = nib.Nifti1Image(file.voxels().astype(np.float32), file.geometry.affine)
    image: Any = nib.as_closest_canonical(stored)  # training takes volumes as RAS
    volume = np.asarray(image.dataobj)
    blurriest = int(np.argmin(axis_detail(volume)))
    return {
        "shape": "x".join(map(str, checked.shape)),
        "spacing_mm": "x".join(f"{zoom:.3g}" for zoom in checked.zooms),
        "sharpness": round(sharpness_across_slices(volume), 3),
    }, next(plane for plane in PLANES if plane_axis(plane) == blurriest)


def _check_grids(checked: Mapping[str, CheckedVolume], target: str) -> None:
    """Training cuts all contrasts alike, voxel by voxel."""
    first = checked[target]
    for volume in checked.values():
        near: Any = np.allclose(volume.affine, first.affine, atol=SAME_PLACE_MM)
        if volume.shape != first.shape or not near:
            raise InputRejected(say("other_grid", name=volume.path.name, target=target))
