"""Write docs/failures.md: every line that a user may read, and what to do about it.

    python -m monai_diffens.report.failures

The lines come from ``transforms/messages.py``, so the document cannot go stale: a test compares them.
"""

from __future__ import annotations

from pathlib import Path

from monai_diffens import messages

__all__ = ["document"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "failures.md"

HEAD = """# What a line means, and what to do

<!-- Written by `python -m monai_diffens.report.failures` from monai_diffens/messages.py. -->

Every line says what is wrong and, after the semicolon or colon, what to do; `{...}` stands for a value of
yours. Where that may not be enough, more is said here. Lines name files, never folders or texts of a
header, which may identify a patient.

A run ends with one list: cases done, skipped because their result is there, rejected and failed. The exit
status is 0 only when every case has its result, 1 when one has not, 130 after Ctrl-C and 143 after SIGTERM.
What is finished is kept, and running the same command again does what is missing.

For the details of a failure in this program, set `level=DEBUG` of `logger_package` in the bundle's
`configs/logging.conf` and run the case again: the log then holds the whole error, and with it paths; look
at it before you pass it on.
"""

SECTIONS = {
    "REJECT": ("Rejected scans", "Nothing is written for the scan; the others of a folder go on."),
    "WARN": ("Warnings", "The result is written; the line is in the log and in `Warnings` of its JSON file."),
    "CASES": ("Runs and failed cases", "About what was asked for, the folders, and cases that failed."),
    "SERVER": ("MONAI Label server", "What the server answers."),
    "BUNDLE": ("Bundles and downloads", "A bundle is not run, or nothing is unpacked."),
    "TRAINING": ("Training", "About the folder to learn from and the training runs."),
    "DICOM": ("DICOM", "About series of DICOM files."),
}

MORE = {
    "corrupt": "Usually a copy that was cut short, a full disk at export, or a download that stopped. "
    "Compare the file's size or checksum with the original.",
    "header": "The first 348 bytes are not what NIfTI says they are; tools that guess may still show a "
    "picture, in the wrong place. Do not mend it by hand.",
    "not_3d": "Single slices and localisers cannot be restored: what lies between slices is the task.",
    "several_volumes": "Diffusion, functional and multi-echo series have several. They count from 0.",
    "settings_differ": "Each result's JSON file notes its inputs' hashes, options and weights. A run that "
    "would make another keeps the one that is there and ends with status 1: none is taken for a new one.",
    "changed": "A case waits for those before it. Its scan was written, replaced or moved meanwhile.",
    "not_finite_result": "One voxel of 1e25 among hundreds does it, or damaged weights.",
    "non_finite": "Some programs write NaN outside of the brain: then filling is right. NaN inside of the "
    "brain is damage by an earlier step: mend that step.",
    "affine": "Without voxel sizes and directions nothing can be restored to 1 mm.",
    "extent": "Most often micrometres or metres that are called millimetres, or spacings of 0.001.",
    "not_mr": "CT has air at -1000. Phase images and difference images are below zero too. `--force "
    "True` accepts it; the model has never seen such images.",
    "too_thick": "Beyond ten slices' worth there is too little measured between two voxels.",
    "no_mask": "`--brain_mask` is a file for a single scan, and for a folder of scans a folder in which each "
    "mask has the name of its scan.",
    "forms_differ": "Two places are in the header. The sform is used, as most programs do. If the scan looks "
    "displaced against others of the patient, the qform was right: copy it to the sform.",
    "no_form": "Check left and right against another scan of the patient before you use the result.",
    "unlike_intensities": "It was trained on skull-stripped T1w, contrast-enhanced T1w, T2w and FLAIR. "
    "CT, other contrasts or strong noise outside of the brain all give this line.",
    "unlike_extent": "A child, a large head, or another organ. Which way a head lies is not checked on a "
    "part of it.",
    "no_brain": "The brain finder gives a mask of anything, so its volume is checked. It knows T1w best.",
    "not_a_head": "Size and shape are compared with the training brains. A phantom, a knee or noise is "
    "refused; a part of a brain that reaches the end of the volume is not.",
    "unlike_orientation": "The letters say what the stored axes seem to be. The mirror image of a head looks "
    "like a head: left and right are never checked.",
    "unlike_spacing": "The network works on the result's voxels; other sizes than the trained one look to it "
    "like larger or smaller brains.",
    "unwritable": "Before anything is computed, room for the largest result is reserved and given back. The "
    "text in brackets is the system's: rights, disk, quota and limits (`ulimit -f`) all "
    "count.",
    "not_written": "The text in brackets is the system's. After a full disk the run stops, since the next "
    "cases would compute in vain.",
    "out_of_memory": "The other cases of a folder went on. A larger `target_spacing` needs less.",
    "unexpected": "This is a defect here. The line holds nothing of the patient; please report it.",
    "interrupted": "Run the same command again to go on.",
    "json_constant": "Nothing was run. MONAI's command line reads Python's True, False and None.",
    "unknown_option": "Nothing was run. Options are the names at the top of the configuration file.",
}


def document() -> str:
    """Return the text of docs/failures.md.

    Raises:
        KeyError: an explanation here belongs to no line any more.
    """
    parts, used = [HEAD], set()
    for name, lines in vars(messages).items():
        if not (name.isupper() and isinstance(lines, dict)) or name.startswith("_"):
            continue
        title, about = SECTIONS.get(name, (name.capitalize(), ""))
        parts.append(f"\n## {title}\n\n{about}\n\n" if about else f"\n## {title}\n\n")
        for key, line in lines.items():
            used.add(key)
            parts.append(f"- `{line}`\n" + (f"  {MORE[key]}\n" if key in MORE else ""))
    if gone := set(MORE) - used:
        raise KeyError(f"explanations of lines that are gone: {sorted(gone)}")
    return "".join(parts)


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
