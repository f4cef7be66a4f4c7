"""What to train on: a BIDS folder, or a data list in JSON; single volumes, or contrasts of one head."""

from __future__ import annotations

import csv
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_diffens.acquisition.slicing import PLANES
from monai_diffens.contrasts import CONTRASTS, TARGET
from monai_diffens.data.cases import is_anatomical
from monai_diffens.data.contrast_cases import find_contrasts
from monai_diffens.files import case_name
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.augmentation import SHARP_PLANE_KEY
from monai_diffens.transforms.conditions import THICK_KEY

log = logging.getLogger("monai_diffens")

HEAD_LABELS = "head_labels"  # key of a label map that a head is made of
SECTIONS = {"train": "training", "val": "validation", "test": "test"}  # as MONAI names them
TEXT_KEYS = ("case", "subject", "contrast", SHARP_PLANE_KEY, THICK_KEY)  # all others are paths
VALIDATION_SHARE = 5  # every fifth subject, where no splits are given
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
NO_SPLIT = ("", "n/a", "none", "exclude")
LISTED = 5  # subjects that a line lists

Item = dict[str, str]


def training_volumes(
    dataset_dir: str | Path,
    split: str,
    data_list: str | Path | None = None,
    planes: str | Sequence[str] = (),
) -> list[Item]:
    """Volumes of a split, from the data list where there is one, else from the BIDS folder.

    Args:
        dataset_dir: BIDS folder, see :func:`bids_volumes`; all of its volumes are taken to be sharp along
            every axis. ``run prepare`` measures that, and writes a data list.
        split: train, val or test.
        data_list: JSON of lists "training", "validation" and "test" of items with ``label`` (path, relative
            to the JSON's folder or absolute), optionally ``subject`` and ``case``, and ``sharp_plane`` of
            those acquired in thick slices.
        planes: volumes acquired in thick slices serve for the slices of these planes; for none if empty.

    Returns:
        Items with ``label``, ``case`` and ``subject``, and ``sharp_plane`` of those acquired in thick slices.

    Raises:
        InputRejected: the data list cannot be read, lacks the section, names no such file, or has no volume
            that serves; the BIDS folder has no volume of the split.
    """
    if data_list is None:
        return _of_split(bids_volumes(dataset_dir), split, dataset_dir)
    served = (planes,) if isinstance(planes, str) else planes
    listed = listed_items(data_list, split, "label")
    items = [item for item in listed if item.get(SHARP_PLANE_KEY) in (None, *served)]
    if not items:
        raise InputRejected(
            f"{data_list}: every volume under '{SECTIONS[split]}' was acquired in thick slices"
        )
    return items


def training_cases(
    dataset_dir: str | Path, split: str, data_list: str | Path | None = None, target: str | None = TARGET
) -> list[Item]:
    """Cases of several contrasts, from the data list where there is one, else from the BIDS folder.

    Args:
        dataset_dir: BIDS folder, see :func:`bids_cases`; contrasts are taken to lie on each other.
        split: train, val or test.
        data_list: as of :func:`training_volumes`, of items of contrast to path, the target among them;
            optionally ``case``, ``lesions`` and ``thick``, contrasts acquired in thick slices and their
            planes, "T2w=axial T1w=sagittal".
        target: contrast to synthesise; any of a case's contrasts where None.

    Returns:
        Items with a path for each contrast, ``case``, and ``lesions`` where there are labels.

    Raises:
        InputRejected: as :func:`training_volumes`.
    """
    if data_list is None:
        every = ((each, item) for each, item in bids_cases(dataset_dir) if target is None or target in item)
        several = [(each, item) for each, item in every if sum(name in item for name in CONTRASTS) > 1]
        return _of_split(several, split, dataset_dir)
    kept = (*CONTRASTS, "lesions", "case", THICK_KEY)
    items = listed_items(data_list, split, target)
    return [{key: value for key, value in item.items() if key in kept} for item in items]


def participants(dataset_dir: str | Path) -> list[Item]:
    """Rows of a BIDS folder's ``participants.tsv``.

    Raises:
        FileNotFoundError: it has none.
        InputRejected: it names no participants.
    """
    table = Path(dataset_dir) / "participants.tsv"
    if not table.is_file():
        raise FileNotFoundError(
            f"{table} is missing: dataset_dir must be a BIDS folder with a participants.tsv"
        )
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [_plain(row) for row in csv.DictReader(file, delimiter="\t")]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputRejected(say("bad_participants", name=table.name, why="no table in UTF-8")) from error
    if not rows or "participant_id" not in rows[0]:
        raise InputRejected(say("bad_participants", name=table.name, why="no column participant_id"))
    return rows


def _plain(row: Mapping[str | None, Any]) -> dict[str, str]:
    """A row without blanks around its words; of the columns used here case does not matter."""
    plain = {name.strip(): str(value or "").strip() for name, value in row.items() if name}
    used = ("participant_id", "split")
    return {name.lower() if name.lower() in used else name: value for name, value in plain.items()}


def subject_splits(dataset_dir: str | Path, subjects: Sequence[str]) -> dict[str, str]:
    """Split of each subject: of column ``split`` of participants.tsv, else every fifth is for validation.

    A user who marks subjects as "test" there has them left alone. Subjects without a split are left out and
    named.

    Raises:
        InputRejected: the table cannot be read, or a subject has two splits, or one that is none.
    """
    if (Path(dataset_dir) / "participants.tsv").is_file():
        rows = participants(dataset_dir)
        if "split" in rows[0]:
            return _told_splits(rows, subjects)
    chosen = set(subjects[VALIDATION_SHARE - 1 :: VALIDATION_SHARE]) or set(subjects[1:][-1:])
    return {subject: "val" if subject in chosen else "train" for subject in subjects}


def _told_splits(rows: Sequence[Mapping[str, str]], subjects: Sequence[str]) -> dict[str, str]:
    told: dict[str, str] = {}
    for row in rows:
        subject, word = row["participant_id"], row["split"].lower()
        if subject not in subjects and not subject.startswith("sub-"):
            subject = f"sub-{subject}"
        if word in NO_SPLIT:
            continue
        if word not in SPLIT_WORDS:
            raise InputRejected(
                say("bad_split", name=subject, split=row["split"], known=", ".join(SPLIT_WORDS))
            )
        split = SPLIT_WORDS[word]
        if told.setdefault(subject, split) != split:
            raise InputRejected(say("two_splits", name=subject, splits=f"{told[subject]} and {split}"))
    if without := [subject for subject in subjects if subject not in told]:
        more = f" and {len(without) - LISTED} more" if len(without) > LISTED else ""
        log.warning(say("no_split", count=len(without), names=", ".join(without[:LISTED]) + more))
    return told


def bids_volumes(dataset_dir: str | Path) -> list[tuple[str, Item]]:
    """Split and item (``label``, ``case``, ``subject``) of every anatomical volume of a BIDS folder.

    Raises:
        InputRejected: there is none.
    """
    root = Path(dataset_dir)
    by_subject: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(root.glob("sub-*/**/anat/sub-*.nii*")):
        if is_anatomical(path):
            by_subject[path.relative_to(root).parts[0]].append(path)
    if not by_subject:
        raise InputRejected(say("no_cases", name=root.name))
    splits_of = subject_splits(dataset_dir, list(by_subject))
    return [
        (splits_of[subject], {"label": str(path), "case": case_name(path), "subject": subject})
        for subject, paths in by_subject.items()
        for path in paths
        if splits_of.get(subject) in SECTIONS
    ]


def bids_cases(dataset_dir: str | Path) -> list[tuple[str, Item]]:
    """Split and item (a path for each contrast, ``case``, ``subject``) of every case of a BIDS folder.

    Raises:
        InputRejected: nothing is there.
    """
    root = Path(dataset_dir)
    found = find_contrasts(root)
    for case in found:
        if case.files and case.problem:
            log.warning(say("left_out", name=case.case, why=case.problem))
    cases = [case for case in found if case.files and not case.problem]
    subjects = [(*case.folder.relative_to(root).parts, case.case)[0] for case in cases]
    splits_of = subject_splits(dataset_dir, list(dict.fromkeys(subjects)))
    return [
        (
            splits_of[subject],
            {"case": case.case, "subject": subject}
            | {contrast: str(path) for contrast, path in case.files.items() if isinstance(path, Path)},
        )
        for case, subject in zip(cases, subjects, strict=True)
        if splits_of.get(subject) in SECTIONS
    ]


def _of_split(items: Iterable[tuple[str, Item]], split: str, dataset_dir: str | Path) -> list[Item]:
    found = [item for each, item in items if each == split]
    if not found:
        raise InputRejected(f"{dataset_dir}: no subject of the split '{split}' serves")
    return found


def head_label_maps(folder: str | Path | None) -> list[Item]:
    """Label maps of whole heads, for :class:`~monai_diffens.transforms.augmentation.RandSyntheticHeadd`.

    Args:
        folder: of NIfTI files; none are listed where it is None or not there.

    Returns:
        Items with ``head_labels`` (path), ``case`` and ``subject``.
    """
    paths = [] if folder is None else sorted(Path(folder).glob("*.nii.gz"))
    return [{HEAD_LABELS: str(path), "case": case_name(path), "subject": case_name(path)} for path in paths]


def draw_weights(
    items: Sequence[Mapping[str, str]], thick_share: float, head_share: float = 0.0
) -> list[float]:
    """Weight of each item in random draws, so that kinds of items make up shares of them.

    Args:
        items: those of :func:`training_volumes` and :func:`head_label_maps`.
        thick_share: of volumes acquired in thick slices, 0 to 1; without effect where all volumes are of one
            sort.
        head_share: of heads made of label maps, 0 to 1; likewise.

    Raises:
        InputRejected: other shares.
    """
    if not (thick_share >= 0 and head_share >= 0 and thick_share + head_share <= 1):
        raise InputRejected(
            f"thick_share and head_share must lie between 0 and 1: {thick_share}, {head_share}"
        )
    shares = {"thick": thick_share, "head": head_share, "thin": 1 - thick_share - head_share}
    kinds = [
        "head" if HEAD_LABELS in item else "thick" if SHARP_PLANE_KEY in item else "thin" for item in items
    ]
    if len(set(kinds)) < 2:
        return [1.0] * len(items)
    return [shares[kind] / kinds.count(kind) for kind in kinds]


def listed_items(data_list: str | Path, split: str, needed: str | None) -> list[Item]:
    """Items of a split of a data list; each has the key ``needed``, a path, and gets a case and a subject.

    Any contrast will do where ``needed`` is None.

    Raises:
        InputRejected: as :func:`training_volumes`.
    """
    path, section = Path(data_list), SECTIONS[split]
    content = _sections(path)
    if not content.get(section):
        raise InputRejected(say("empty_section", name=path.name, section=section))
    return [
        _resolved(item, needed, path.parent, f"{path}: '{section}' {number}")
        for number, item in enumerate(content[section])
    ]


def listed_splits(data_list: str | Path) -> list[str]:
    """Splits that a data list has items of; a list of another name is told, since it is not used.

    Raises:
        InputRejected: as :func:`training_volumes`.
    """
    content = _sections(Path(data_list))
    for name, items in content.items():
        if name not in SECTIONS.values() and isinstance(items, list) and any(map(_is_item, items)):
            known = ", ".join(SECTIONS.values())
            log.warning(say("unused_section", name=Path(data_list).name, section=name, known=known))
    return [split for split, section in SECTIONS.items() if content.get(section)]


def _is_item(item: Any) -> bool:
    return isinstance(item, Mapping)


def _sections(path: Path) -> Mapping[str, Any]:
    """Content of a data list."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputRejected(f"{path}: not a data list ({type(error).__name__})") from error
    wanted = isinstance(content, Mapping) and all(
        isinstance(content.get(section, []), list) for section in SECTIONS.values()
    )
    if not wanted:
        raise InputRejected(
            f"{path}: not a data list (an object of {', '.join(SECTIONS.values())} is needed)"
        )
    return content


def _resolved(item: Any, needed: str | None, folder: Path, told: str) -> Item:
    if needed is None and isinstance(item, Mapping):
        needed = next((name for name in CONTRASTS if name in item), CONTRASTS[0])
    if not isinstance(item, Mapping) or needed not in item:
        raise InputRejected(f"{told} is no item with a '{needed}'")
    if item.get(SHARP_PLANE_KEY, PLANES[0]) not in PLANES:
        raise InputRejected(f"{told}: {SHARP_PLANE_KEY} must be one of {', '.join(PLANES)}")
    found = {key: str(value if key in TEXT_KEYS else folder / str(value)) for key, value in item.items()}
    for key, value in found.items():
        if key not in TEXT_KEYS and not Path(value).is_file():
            raise InputRejected(f"{told}: no file {Path(value).name}")
    name = case_name(found[needed])
    return {"case": name, "subject": name} | found
