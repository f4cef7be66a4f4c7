"""Look at the contrasts of every training subject before a translation training does."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from monai_diffens.data.bids import CONTRASTS
from monai_diffens.data.prepare import check_target, leaks, write_lists
from monai_diffens.data.training_volumes import SECTIONS, bids_cases, listed_items
from monai_diffens.messages import say
from monai_diffens.transforms.input_gate import CheckedVolume, InputRejected

__all__ = ["prepare_cases"]

SAME_PLACE_MM = 0.01


def prepare_cases(
    dataset_dir: str | Path,
    output_dir: str | Path,
    data_list: str | Path | None = None,
    target: str = "FLAIR",
    spacing: float = 1.0,
) -> Path:
    """Check every contrast of every case with the input gate, write ``prepare.csv`` and ``data_list.json``.

    Left out, and said so: cases without the target or with nothing beside it. An error: files that the gate
    rejects, another voxel size, contrasts on another grid than the target, a subject or a file in two splits.
    How well contrasts are registered to each other is not measured.

    Args:
        dataset_dir: BIDS folder; with a column ``split`` in participants.tsv, else every fifth subject is
            for validation.
        output_dir: receives the two files.
        data_list: looked at instead of the folder, see
            :func:`~monai_diffens.data.training_volumes.training_cases`.
        target: contrast to synthesise.
        spacing: voxel size of ground truth in mm.

    Returns:
        Path of the data list, to be given as ``--data_list``.

    Raises:
        SystemExit: status 1 after the summary, when there was an error or nothing serves for training.
    """
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    items = _items(dataset_dir, data_list, target)
    errors = leaks((split, item, [item[c] for c in CONTRASTS if c in item]) for split, item in items)
    rows, lists = [], {section: list[dict[str, str]]() for section in SECTIONS.values()}
    for split, item in items:
        paths = {contrast: item[contrast] for contrast in CONTRASTS if contrast in item}
        row = {"case": item["case"], "subject": item["subject"], "split": split, "contrasts": " ".join(paths)}
        found = []
        try:
            checked = {contrast: check_target(Path(path), spacing) for contrast, path in paths.items()}
            if target not in paths or len(paths) < 2:
                found.append(say("no_target", target=target))
            else:
                _check_grids(checked, target)
        except InputRejected as error:
            found.append(str(error))
            errors.append(str(error))
        row["verdict"] = "; ".join(found or ["accepted"])
        rows.append(row)
        if not found:
            relative = {contrast: os.path.relpath(path, output) for contrast, path in paths.items()}
            lists[SECTIONS[split]].append({"case": item["case"], "subject": item["subject"], **relative})
    return write_lists(output, rows, lists, errors)


def _items(
    dataset_dir: str | Path, data_list: str | Path | None, target: str
) -> list[tuple[str, dict[str, str]]]:
    """Split and item of every case."""
    if data_list is None:
        return bids_cases(dataset_dir)
    listed = json.loads(Path(data_list).read_text(encoding="utf-8"))
    splits = [split for split, section in SECTIONS.items() if listed.get(section)]
    return [(split, item) for split in splits for item in listed_items(data_list, split, target)]


def _check_grids(checked: Mapping[str, CheckedVolume], target: str) -> None:
    """Training cuts all contrasts alike, voxel by voxel."""
    first = checked[target]
    for volume in checked.values():
        near: Any = np.allclose(volume.affine, first.affine, atol=SAME_PLACE_MM)
        if volume.shape != first.shape or not near:
            raise InputRejected(say("other_grid", name=volume.path.name, target=target))
