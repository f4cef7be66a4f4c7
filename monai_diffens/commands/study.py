"""What ``diffens check`` tells of a DICOM study: the table of its series."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from monai_diffens.files import NIFTI_ENDINGS

__all__ = ["study_lines"]


def study_lines(scan: Path, json_lines: bool = False) -> list[str]:
    """The table of the series of a folder of DICOM, line by line; nothing for other input.

    Args:
        scan: what a run would be given; a folder that directly holds NIfTI files gives those alone.
        json_lines: a JSON object a series instead.
    """
    from monai_diffens.data.dicom.files import find_files
    from monai_diffens.data.dicom.study import study_table, table_text
    from monai_diffens.messages import InputRejected

    niftis = scan.is_dir() and any(file.name.lower().endswith(NIFTI_ENDINGS) for file in scan.iterdir())
    if niftis or not find_files(scan).dicom:
        return []
    try:
        rows = study_table(scan)
    except InputRejected:  # told with the cases
        return []
    if json_lines:
        return [json.dumps({"series": asdict(row)}) for row in rows]
    return [*table_text(rows).splitlines(), ""]
