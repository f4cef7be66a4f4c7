"""What lies in a run's folder beside the results: a table of them, and for BIDS input the names of BIDS.

Results have one name, ``<case>_<suffix>``, whatever the input. A BIDS dataset's are linked under
``sub-*/[ses-*/]anat`` too, with a ``dataset_description.json``, so that BIDS tools read the folder as a
derivative. The results are there already: nothing here is an error, and what cannot be written is logged.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai_diffens.data.case_list import CaseList
from monai_diffens.files import OWNER_FOLDER, PART, package_version, whole_or_absent
from monai_diffens.messages import say

log = logging.getLogger("monai_diffens")

TABLE, DESCRIPTION, IGNORED = "results.csv", "dataset_description.json", ".bidsignore"
COLUMNS = (
    "case",
    "status",
    "result",
    "reason",
    "warnings",
    "consistency_mean",
    "consistency_max",
    "spread_mean",
    "num_steps",
    "weights_sha256",
    "version",
)
LARGEST_RECORD = 1 << 20  # bytes
BIDS_VERSION = "1.10.0"
NAME = "Diff-Ensembler"
ENTITIES = (
    "sub ses task acq ce trc stain rec dir run mod echo flip inv mt part proc hemi space split recording "
    "chunk seg res den label desc"
).split()
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs what begins so


def write_table(cases: CaseList) -> Path | None:
    """Write ``results.csv``: a row for each result in the folder, and for each input of this run without one.

    Results of earlier runs, and of other processes of this one, are in it too, from their JSON files, so that
    an interrupted run and its rerun leave the same table. Figures are relative to the scale that the report
    names.

    Args:
        cases: of the run, after its last case.

    Returns:
        Path of the table; None where it could not be written, or there is no result: a run that makes none
        leaves no file.
    """
    rows = [row for sidecar, facts in _records(cases) if (row := _row(cases, sidecar, facts))]
    if not rows:
        return None
    failed = [{"case": case, "status": "failed", "reason": line} for case, line in cases.failures.items()]
    for entry in cases.rejected:
        failed.append({"case": entry.path.name, "status": "rejected", "reason": entry.reason})
    failed += [{"case": path.name, "status": "nothing to do"} for path in cases.fine]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in [*rows, *failed]:
        writer.writerow({name: _harmless(value) for name, value in row.items()})
    path = cases.output_dir / TABLE
    try:
        with whole_or_absent(path) as file:
            file.write(text.getvalue().encode(errors="replace"))
    except OSError as error:
        log.warning(say("no_table", name=TABLE, why=error.strerror))
        return None
    return path


def write_derivatives(cases: CaseList) -> list[Path]:
    """Give the results of a BIDS dataset their names of BIDS, in the same folder.

    Args:
        cases: of the run, after its last case.

    Returns:
        Paths that were written; none where the input is no BIDS dataset, or where the folder is a dataset of
        somebody else's.
    """
    folder = cases.output_dir
    raw = _dataset_of(Path(str(cases.input)))
    if raw is None or raw.resolve() == folder.resolve():
        return []
    written: list[Path] = []
    try:
        for sidecar, facts in _records(cases):
            stem = sidecar.name.removesuffix(".json")
            case = stem.removesuffix(f"_{cases.suffix}")
            maps = {
                str(name).removesuffix(".nii.gz").removeprefix(f"{stem}_"): name for name in facts["Maps"]
            }
            sources = {bids_path(case, cases.suffix, name): folder / str(file) for name, file in maps.items()}
            result = bids_path(case, cases.suffix)
            sources |= {result: sidecar.with_name(f"{stem}.nii.gz")}
            if result is None:
                continue
            if not written and not _describe(folder, raw):
                log.warning(say("foreign_dataset", name=DESCRIPTION))
                return []
            sources[result.with_name(result.name.replace(".nii.gz", ".json"))] = sidecar
            for target, source in sources.items():
                if target is None or not source.is_file() or source.parent != folder:
                    continue
                if folder / target in written:  # as of sub-1_run-1_T1w and run-1_sub-1_T1w
                    log.warning(say("no_table", name=source.name, why=f"{target.name} is there already"))
                    continue
                _link(source, folder / target)
                written.append(folder / target)
    except OSError as error:
        log.warning(say("no_table", name="BIDS", why=error.strerror))
    return written


def bids_path(case: str, suffix: str, map_name: str | None = None) -> Path | None:
    """Where BIDS would have a result: ``sub-1/anat/sub-1_rec-sr_T1w.nii.gz``.

    Args:
        case: name of the case, its input's BIDS name.
        suffix: of the run's results; of its parts a word becomes the ``rec-`` entity (what was done), and
            one of a contrast made the name's last part.
        map_name: of a map beside the result; becomes the ``desc-`` entity.

    Returns:
        Path in the dataset; None where ``case`` is no BIDS name.
    """
    words, entities = [], {}
    for part in f"{case}_{suffix}".split("_"):
        key, dash, value = part.partition("-")
        if dash and key in entities:
            return None
        if dash:
            entities[key] = value
        else:
            words.append(part)
    known = all(key in ENTITIES and re.fullmatch(r"[A-Za-z0-9]+", value) for key, value in entities.items())
    if "sub" not in entities or not known or not 1 <= len(words) <= 2:
        return None
    if len(words) == 2:
        entities["rec"] = entities.get("rec", "") + words[1]
    if map_name is not None:
        entities["desc"] = entities.get("desc", "") + re.sub(r"[^A-Za-z0-9]", "", map_name)
    name = "_".join(f"{key}-{entities[key]}" for key in ENTITIES if key in entities)
    folders = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    return Path(*folders, "anat", f"{name}_{words[0]}.nii.gz")


def _records(cases: CaseList) -> Iterator[tuple[Path, dict[str, Any]]]:
    """JSON files of the folder's results and what they say; the index names those that are not ours."""
    for sidecar in sorted(cases.output_dir.glob(f"*_{cases.suffix}.json")):
        if not sidecar.with_name(sidecar.name.removesuffix(".json") + ".nii.gz").is_file():
            continue
        try:
            if not sidecar.is_file() or sidecar.stat().st_size > LARGEST_RECORD:
                continue
            facts = json.loads(sidecar.read_text(encoding="utf-8"))
            if facts["GeneratedBy"][0]["Name"] == NAME and isinstance(facts["Maps"], list):
                yield sidecar, facts
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            log.debug("%s", sidecar.name, exc_info=error)


def _row(cases: CaseList, sidecar: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    stem = sidecar.name.removesuffix(".json")
    case = stem.removesuffix(f"_{cases.suffix}")
    if case in cases.failures:
        return None
    try:
        consistency, spread = facts.get("Consistency", {}), facts.get("Spread", {})
        return {
            "case": case,
            "status": "done",
            "result": f"{stem}.nii.gz",
            "warnings": "; ".join(facts.get("Warnings", [])),
            "consistency_mean": consistency.get("MeanAbsoluteDifference"),
            "consistency_max": consistency.get("MaximumAbsoluteDifference"),
            "spread_mean": spread.get("Mean"),
            "num_steps": facts.get("Sampling", {}).get("num_steps"),
            "weights_sha256": facts.get("WeightsSHA256"),
            "version": facts["GeneratedBy"][0]["Version"],
        }
    except (TypeError, LookupError, AttributeError):
        return None


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _dataset_of(path: Path) -> Path | None:
    """The BIDS dataset that an input is or lies in: a subject's or a session's folder counts."""
    for folder in (path, path.parent, path.parent.parent):
        if (folder / DESCRIPTION).is_file():
            return folder if path.is_dir() else None
        if not folder.name.startswith(("sub-", "ses-")):
            return None
    return None


def _describe(folder: Path, raw: Path) -> bool:
    """Write the description of the derivative; False where another program's is there."""
    path = folder / DESCRIPTION
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return any(each["Name"] == NAME for each in content["GeneratedBy"])
        except (ValueError, TypeError, LookupError, RecursionError):
            return False
    description: dict[str, Any] = {
        "Name": f"Synthetic images by {NAME}, not for diagnosis",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": NAME, "Version": package_version()}],
    }
    try:
        doi = json.loads((raw / DESCRIPTION).read_text(encoding="utf-8")).get("DatasetDOI")
    except (ValueError, AttributeError, RecursionError):
        doi = None
    if isinstance(doi, str):
        description["SourceDatasets"] = [{"DOI": doi}]
    with whole_or_absent(path) as file:
        file.write((json.dumps(description, indent=2) + "\n").encode())
    with whole_or_absent(folder / IGNORED) as file:  # what lies at the top is the run's own
        file.write(b"/*.nii.gz\n/*_*.json\n/*.html\n/index.json\n/results.csv\n")
    return True


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system has none."""
    for folder in reversed([p for p in target.parents if not p.exists()]):
        folder.mkdir(mode=OWNER_FOLDER, exist_ok=True)
    part = target.with_name(f"{PART}{os.getpid()}-{secrets.token_hex(4)}{''.join(target.suffixes[-1:])}")
    try:
        try:
            os.link(source, part)
        except OSError:
            shutil.copy2(source, part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
