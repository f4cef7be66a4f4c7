"""Every line that a user may read about a bad input or bundle: what is wrong, then what to do.

One place, so that wording, translation and tests look nowhere else. ``{name}`` is the file's own name (never
its folder, never a header text: those may identify a patient). Lines never hold a line break.
"""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("monai_diffens")

LONGEST = 1000  # characters of one value in a line

REJECT = {
    "missing": "{name}: no such file; check the path",
    "unreadable": "{name}: cannot be read ({why}); check its permissions",
    "empty": "{name}: empty file (0 bytes); copy or export it again",
    "wrong_type": "{name}: {kind}, not a NIfTI volume; convert it to .nii or .nii.gz "
    "(of DICOM give the folder of the series)",
    "wrong_name": "{name}: a NIfTI volume under the wrong file name; rename it to end with {ending}",
    "corrupt": "{name}: truncated or corrupt ({why}); copy or export it again",
    "pair": "{name}: the header of a .hdr/.img pair; convert both together to one .nii or .nii.gz "
    "(for example with fslchfiletype, mri_convert or nibabel)",
    "changed": "{name}: changed between check and use, so nothing was made of it; run again when it is "
    "written completely",
    "header": "{name}: damaged NIfTI header ({why}); export it again",
    "not_3d": "{name}: a {dims}D image of shape {shape}, a 3D volume is needed; give the whole stack",
    "several_volumes": "{name}: holds {count} volumes (shape {shape}), one 3D volume is needed; "
    "pick one with --volume N, counted from 0",
    "no_such_volume": "{name}: has no volume {volume} (shape {shape}); pick one of 0 to {last}",
    "voxel_type": "{name}: voxels of type {dtype}, one real number per voxel is needed; "
    "convert it to a grey-value magnitude image",
    "non_finite": "{name}: {count} voxels are NaN, infinite or beyond float32; "
    "pass --fill_nan True to take them as 0",
    "constant": "{name}: every voxel has the value {value:g}, there is no image in it; check the export",
    "affine": "{name}: unusable geometry ({why}); export it again or set its spacing and orientation",
    "extent": "{name}: spans {extent:g} mm by its header, which is not a head; "
    "set its spacing and its unit (millimetres)",
    "not_positive": "{name}: no voxel is above zero (maximum {high:g}), while an MR magnitude image has its "
    "signal there; check the export",
    "not_mr": "{name}: {percent:.0f} % of the voxels lie below {cut:g} (minimum {low:g}), as in CT or phase "
    "images, while an MR magnitude image has none; give an MR magnitude image, or use force if it is one",
    "too_thick": "{name}: slices {mm:.3g} mm apart are {factor:.3g} target voxels, more than the {limit:g} "
    "that can be restored; ask for a coarser target_spacing",
    "no_overlap": "{name}: {one} and {other} share {percent:.0f} % of the smaller one; they are not of "
    "one head, or not registered to each other",
    "no_elastix": "{name}: {contrast} is to be registered to {first}, which needs itk-elastix; run: pip "
    "install 'monai-diffens[register]'",
    "little_to_register": "{name}: {contrast} and {first} share {volume:.0f} cm3 of brain or less, too "
    "little to register by ({limit:.0f}); pass --register never",
    "not_registered_agreement": "{name}: {contrast} does not fit {first}: their edges agree by {after:.2f} "
    "after registration ({before:.2f} before; two scans of one head reach 0.25), moved by {mm:.1f} mm and"
    " {degrees:.1f} degrees; give scans of one person, or pass --register never",
    "not_registered_implausible": "{name}: {contrast} would be moved by {mm:.0f} mm and {degrees:.0f} "
    "degrees to lie on {first}, more than a head moves; check its orientation, or pass --register never",
    "not_registered_overlap": "{name}: {contrast} shows {overlap:.0f} % of the brain of {first}, too little"
    " to register; give scans of one region, or pass --register never",
    "not_registered_constant": "{name}: {contrast} or {first} holds one value alone, nothing to register by; "
    "check the export",
    "not_registered_not_finite": "{name}: {contrast} or {first} holds values that are not finite; pass "
    "--fill_nan True, or check the export",
    "no_contrast": "{name}: no contrast that can be used, found {found}, expected one of {expected}; files "
    "are named as sub-01_T1w.nii.gz, or end with t1n, t1c, t2w, t2f, t1, t1ce, t1gd, t2 or flair as in BraTS",
    "contrast_twice": "{one} and {other} are both {contrast}: keep one of them in the folder",
    "bad_path": "{name}: {contrast} must be the path of a file as text, got {kind}; write it in quotes",
    "unknown_contrast": "{name}: unknown contrast '{contrast}'; {hint}",
    "no_mask": "{name}: no brain mask of this name at --brain_mask; add it, or leave --brain_mask out",
    "mask_needed": "{name}: --skull given takes a brain mask of yours; pass --brain_mask",
    "no_deepbet": "{name}: {which} shows a head with its skull, and the model needs the brain alone; run: "
    "pip install 'monai-diffens[skull]', or pass --brain_mask",
    "no_brain": "{name}: what was found as the brain of {which} has {volume:.0f} cm3, a brain has {low:.0f} "
    "to {high:.0f}; if this is a head, pass --brain_mask, or --skull keep to use all of it",
    "not_a_head": "{name}: it does not look like a head ({extent} mm, of another shape than a brain); "
    "give MR of a head, or use force if it is one",
}

WARN = {
    "squeezed": "4D file with a single volume (shape {shape}): taken as 3D",
    "picked": "volume {volume} of {count} (shape {shape}) was picked",
    "filled": "{count} voxels were NaN, infinite or beyond float32: taken as 0 because of fill_nan",
    "below_zero_shifted": "{count} voxels ({percent:.2g} %) lie below zero, down to {lowest:.4g} (normalised "
    "values?): shifted above it for the network, and the result of this scan shifted back",
    "below_zero_hidden": "{count} voxels ({percent:.2g} %) lie slightly below zero, down to {lowest:.4g} "
    "(interpolation, noise?): the network is shown 0 there, and the result of this scan gets them back",
    "mask_empty": "the brain mask holds no voxel of the scan: the whole volume was restored",
    "no_deepbet_kept": "the head has its skull and its brain is not known, so that brightness is set by all"
    " of it; run: pip install 'monai-diffens[skull]', or pass --brain_mask",
    "head_kept": "the head has its skull, which the model never saw: kept because of --skull keep",
    "brain_cut": "the scan shows a part of the brain, {volume:.0f} cm3 of it",
    "with_skull": "the scan spans {extent} mm, a brain {low} to {high} mm in training: it shows a head with "
    "its skull",
    "cropped": "the brain spans {extent} mm and reaches the end of the volume, {low} to {high} mm in "
    "training: it is cut off",
    "forced_no_head": "it does not look like a head ({extent} mm, of another shape than a brain): accepted "
    "because of force",
    "mask_resampled": "the brain mask lies on another grid: resampled to the scan's, nearest neighbour",
    "contrast_ignored": "{file}: not used, the name tells no contrast of T1w, ce-gadolinium_T1w, T2w and "
    "FLAIR; names end with one of these, or with t1n, t1c, t2w, t2f, t1, t1ce, t1gd, t2 or flair",
    "target_alone": "of all contrasts only {target} itself is used: the result is hardly more than its "
    "interpolation; give another contrast too, or use the bundle diffensembler_sr",
    "resampled": "{contrast} lies on another grid: resampled to that of {first}",
    "registered": "{contrast} did not lie on {first}: moved by {mm:.1f} mm and {degrees:.1f} degrees",
    "doubtful": "{contrast} and {first} agree by {after:.2f} only (0.30 and more for two scans of one "
    "head): look at both before you trust the result",
    "may_be_apart": "{contrast} may not lie on {first}: their edges agree by {before:.2f} (0.30 and more for "
    "two scans of one head); to register it, run: pip install 'monai-diffens[register]'",
    "swapped_fluid": "{one} looks like {other}: bright over dark tail of the brain's values {seen}; are "
    "their names swapped?",
    "swapped_agent": "{one} has brighter voxels than {other} (99.9th percentile over median {seen}); are "
    "their names swapped?",
    "sheared": "the affine is sheared: kept as sform, the result's qform code is 0",
    "forms_differ": "sform and qform differ by up to {mm:.2f} mm: sform used, the result's qform code is 0",
    "qform_unusable": "the qform is damaged: sform used, the result's qform code is 0",
    "mended": "the header's {field} is {was}, which contradicts the format: read as {now}",
    "behind": "{count} bytes behind the last voxel of the header's size were not read: does the header say "
    "how many slices there are?",
    "no_form": "neither sform nor qform is set: assumed centred, second axis to anterior, third to superior, "
    "first to the left (NIfTI method 1 read as nibabel does); left and right cannot be told from this file",
    "unit_converted": "the header's unit is {unit}: converted to millimetres",
    "unit_unknown": "the header names no unit of length: taken as millimetres",
    "thick": "slices {mm:.3g} mm apart are {factor:.3g} target voxels, beyond the trained 2 to {trained:g}: "
    "expect less detail than the model card tells",
    "unlike_intensities": "intensities are unlike the training scans: their {percentile}th percentile is "
    "{value:.0f} % of the {unit}, {low:.0f} to {high:.0f} % in training (another modality or contrast?)",
    "unlike_extent": "the brain spans {extent} mm, {low} to {high} mm in training (another head size, or not "
    "a brain alone?)",
    "unlike_orientation": "by its shape the head lies {codes}, not RAS as the header says: check the file's "
    "orientation",
    "unlike_spacing": "the result has voxels of {spacing} mm, trained was {trained} mm",
    "thickness": "slices are {thickness:.3g} mm thick and {spacing:.3g} mm apart ({what} of {mm:.3g} mm): "
    "restored as such; --slice_thickness overrides",
    "thickness_unbelieved": "slices of {thickness:.3g} mm, {spacing:.3g} mm apart, by the header: not "
    "believed, taken as thick as they are apart; --slice_thickness overrides",
    "forced": "{percent:.0f} % of the voxels lie below {cut:g}, unlike MR: accepted because of force",
}

CASES = {
    "unknown_option": "--{name}: no such option; {hint}",
    "bad_option": "{name} {value}: {wanted} is needed",
    "no_table": "{name}: not written beside the results ({why}); they are there all the same",
    "foreign_dataset": "{name}: that of another program is in the output folder, so results have no BIDS "
    "names there; choose a folder of their own",
    "one_case": "one case is needed, as one file or a mapping of contrast to scan",
    "already_fine": "{name}: nothing to do, its spacing already reaches the target; ask for a finer "
    "target_spacing",
    "two_qualities": "--quality {quality}: stands for --num_steps {steps}; give one of the two",
    "no_page": "{name}: no page of a run there; give the folder of the results",
    "wrong_bundle_root": "--bundle_root {name}: no bundle there, while the configuration lies in {bundle}; "
    "pass --bundle_root {bundle}",
    "json_constant": "--{name} {value}: would be taken as text; write --{name} {constant}",
    "no_input": "no input given; pass --input FILE_OR_FOLDER",
    "no_contrast_input": "no input given; pass --input CASE_FOLDER, FOLDER_OF_CASE_FOLDERS or DATA_LIST.json",
    "not_a_case": "{name}: a folder of one case, a folder of case folders or a data list (.json) is needed",
    "bad_list": "{name}: {why}; a data list is a JSON list of objects of contrast to path",
    "input_missing": "{name}: no such file or folder; check --input",
    "no_cases": "{name}: no NIfTI volume (.nii, .nii.gz) and no DICOM series to work on in this folder; "
    "check --input",
    "unwritable": "{name}: cannot write to this output folder ({why}); choose another or free space",
    "nothing_to_do": "{name}: nothing to do, its spacing of {spacing} mm already reaches the target of "
    "{target} mm; for more, ask for a finer target_spacing",
    "bad_spacing": "target_spacing {value}: one positive number in mm is needed, or three; "
    "change --target_spacing",
    "bad_volume": "volume {value}: a whole number from 0 is needed; change --volume",
    "bad_suffix": "suffix {name}: letters, digits, '-' and '_' only; choose another --suffix",
    "outside": "{name}: a link that leads out of the input folder; copy the file instead",
    "same_name": "{name}: {count} inputs would all be written as {result}; rename them",
    "settings_differ": "{name}: {result} is there already and was made otherwise ({what}): it is kept; pass "
    "--overwrite True to make it again, or choose another --output_dir",
    "foreign_result": "{name}: a file {result} is there that this program did not write; move it, or choose "
    "another --output_dir",
    "damaged_result": "{name}: damaged, or without its JSON file: this case is done again",
    "own_results": "{count} results of this package lie in the input folder: left out",
    "not_nifti": "{count} files beside the scans are no NIfTI volumes and were not used: {names}",
    "not_anatomical": "{count} volumes name no anatomical contrast and were not used: {names}",
    "not_looked_into": "{count} folders inside the input folder were not looked into; run on them by "
    "themselves",
    "own_result": "{name}: left out, it is a result of this package",
    "bad_case": "case name {name}: not a plain file name (no folders, no leading dot); rename the case",
    "little_room": "the results may need up to {need:.1f} GB and the output folder has {free:.1f} GB left: "
    "free space, or the last cases may fail",
    "foreign_record": "{name}: damaged, or not written by this program: left out of the index; remove it, or "
    "run its case again with --overwrite True",
    "no_index": "the index of the results cannot be written ({why}); the results themselves are complete",
    "no_result": "{name}: no result was written; run again to see why",
    "not_written": "{name}: reading the scan or writing its result failed ({why}); mend that and run again: "
    "finished cases are kept",
    "bad_share": "--share {value}: no such way to share work among processes; use {choices}",
    "no_master": "--share slices: the processes cannot find each other; start them by torchrun, or set "
    "MASTER_ADDR and MASTER_PORT to a machine and a free port of the run",
    "out_of_step": "a process failed ({why}) and the others cannot go on without it; finished cases are "
    "kept, run again with fewer processes or a smaller --max_memory",
    "needs_memory": "{name}: needs about {need:.2g} GiB of memory and has {limit:.2g}; raise --max_memory, "
    "use a larger machine or ask for a coarser target_spacing",
    "not_finite_result": "{name}: {percent:.2g} % of the result is NaN or infinite, nothing was written; "
    "look for voxels far beyond all others in the scan, and go back to the released weights and options",
    "tight_memory": "{name}: within {have:.2g} GiB of memory the fusion computes {factor:.1f} times as "
    "much as without a limit; from {enough:.2g} GiB on it costs nothing: raise --max_memory if it can be had",
    "out_of_memory": "{name}: not enough memory; close other programs, use a larger machine or ask for a "
    "coarser target_spacing",
    "unexpected": "{name}: {kind} at {place}, an error of this program; report this line, nothing was "
    "written for this case",
    "interrupted": "interrupted by {signal}: finished cases are kept, no file is half written; "
    "run again for the rest",
}

SERVER = {
    "outside_studies": "not an image of the studies folder: ask for one of its images by id, or upload one",
    "no_image": "{name}: no such image in the studies folder; ask for the list of images again",
    "bad_id": "name {name}: not a plain file name (no folders, no leading dot); choose another",
    "unknown_model": "{name}: no such model; this server has {known}",
    "unknown_parameter": "parameter {name}: no such parameter; {hint}",
    "bad_parameter": "parameter {name}: {value} is not {wanted}",
    "bad_request": "the request cannot be read; check its parameters (JSON objects), headers and files",
    "image_there": "{name}: an image of the studies has that name already, and it was left as it is; choose "
    "another name, or delete that image first",
    "not_offered": "{what}: not offered by this server; {instead}",
    "several_files": "{count} files were given, one volume is needed; send them one by one",
    "name_taken": "{name}: an image of the studies folder that is no result of this server has that name; "
    "rename it, or run without publishing",
    "failed": "the model failed ({kind}); the server's log tells where",
    "nothing_to_learn": "no image to learn from: "
    "add images named PATIENT_T1w (T2w, FLAIR) of {size} mm or finer",
    "no_pair_to_learn": "no patient to learn from: add images named PATIENT_{target} and PATIENT_CONTRAST "
    "(another one) of {size} mm or finer, both on one grid",
    "open_to_network": "not started: on {host} anyone on the network could read the studies; "
    "add --host 127.0.0.1, or turn on MONAI Label's authentication and add --conf allow_remote true",
    "other_origin": "called by a web page of another origin: only programs and the server's own pages may",
    "no_companions": "{name}: images named PATIENT_CONTRAST are needed, with one of {contrasts}; rename them",
    "studies_not_folder": "not started: the studies must be a folder on this machine",
}

BUNDLE = {
    "not_installed": "{name}: no such bundle in this installation; bundles: {known}; install the wheel of a "
    "release, or give --bundle_root",
    "no_bundle": "{name}: no bundle there (configs/metadata.json is missing); check the path",
    "digest_of_folder": "{name}: --sha256 is the digest of a zip; give the zip",
    "no_manifest": "{name}: its manifest.sha256 is missing or unreadable; fetch the release zip again",
    "bad_manifest": "{name}: its manifest is damaged at '{line}'; fetch the release zip again",
    "manifest_differs": "{name}: {count} files are not as released, first: {first}; fetch it again, or, "
    "if the change is yours, run: diffens bundle seal BUNDLE",
    "not_listed": "{name}: {count} files are not in its manifest, first: {first}; remove them, they could "
    "be run in place of the released ones",
    "not_a_file": "{name}: {file} is a link or a special file; a bundle holds plain files only",
    "bad_config": "{name}: {file} is not a readable configuration ({why}); fetch the release zip again",
    "not_allowed": "{name}: {count} parts of its configs are not on the allow-list, first: {first}; do "
    "not run it unless you know why they are there",
    "unknown_kind": "{name}: {count} files are of a kind that can hold a program and that no bundle needs, "
    "first: {first}; do not use it, or give the published digest: --sha256",
    "verified": "{name}: verified, {count} files as in the manifest; its configs run listed code only",
    "not_verified": "{name}: not part of the check: what its weights do, which files a run reads and writes, "
    "and, without the publisher's digest (--sha256), who made it",
    "foreign_code": "{name}: its copy of monai_diffens is not this one ({count} files, first: {first}); "
    "verify with the same version, or give the published digest: --sha256",
    "other_copy": "{name}: it brings its own monai_diffens, but another one was imported first (version "
    "{version}); run it in a process of its own, from another folder",
    "not_complete": "{name}: {file} is missing; a release needs it",
    "not_an_archive": "{name}: not a whole zip archive (a download cut short?); fetch it again",
    "damaged_member": "{name}: {file} in it is damaged; fetch it again",
    "unsafe_member": "{name}: it holds '{file}', {kind}; nothing was unpacked",
    "too_large": "{name}: it unpacks to {size:.1f} GB, more than the {limit:.1f} GB of any bundle; "
    "nothing was unpacked",
    "wrong_top": "{name}: it holds {found}, one top folder is needed; nothing was unpacked",
    "wrong_digest": "{name}: SHA-256 is {found}, not {wanted}: damaged or replaced; nothing was unpacked",
    "already_there": "{name}: already there and not empty; remove it first or choose another --bundle_dir",
    "no_download": "{name}: cannot be fetched ({why}); check the address and try again",
    "missing_package": "{name}: needs {package} {least} or later, which is not installed: pip install "
    "'{package}>={least}'",
    "old_package": "{name}: needs {package} {least} or later, found {found}: pip install "
    "'{package}>={least}'",
    "tested_with": "{name}: tested with {tested}; found {found}",
}

DICOM = {
    "no_pydicom": "DICOM needs pydicom, which is not installed; run: pip install 'monai-diffens[dicom]'",
    "dicom_damaged": "files that may be slices cannot be read (empty, cut or damaged): {files}; slices "
    "may be missing: export them again, or remove what does not belong there",
    "dicom_outside": "DICOM files that are links leading out of the input folder: {files}; copy them instead",
    "dicom_closed": "folders that cannot be opened: {files}; slices may be missing: check their permissions",
    "dicom_hidden": "hidden DICOM files were left out: {files}",
    "dicom_no_image": "DICOM files without an image (reports and the like) were left out: {files}",
    "dicom_others": "files that are no DICOM were left out: {files}",
    "dicom_beside": "{count} DICOM files beside NIfTI files were left out; name their series by --series",
    "dicom_modality": "{name}: modality {modality}, an MR series is needed; choose an MR series",
    "dicom_frames": "{name}: a multi-frame file that is not Enhanced MR; convert it (for example dcm2niix to "
    "NIfTI)",
    "dicom_class": "{name}: neither MR nor Enhanced MR Image Storage in grey values (a screenshot or colour "
    "map?); choose the scanner's own images",
    "dicom_position": "{name}: {attribute} is missing or unusable, so slices have no place; "
    "export the series again",
    "dicom_mixed": "{name}: mixed series, {count} of {total} slices differ from the others in {attribute}, "
    "at {places} mm along the slice axis; split it into series of one kind",
    "dicom_duplicates": "{name}: {count} slices lie where another does, at {places} mm along the slice axis; "
    "remove copies, or split it by time, echo or b-value",
    "dicom_gap": "{name}: slices are missing or unevenly spaced, from {places} mm along the slice axis "
    "({mm:.4g} mm apart elsewhere); export the whole series again",
    "dicom_crooked": "{name}: slices do not stack straight along their normal; resample the series first",
    "dicom_pixels": "{name}: truncated or corrupt pixels, or a compression that cannot be read; "
    "export the series again",
    "dicom_length": "{name}: {found} bytes of pixels where the header's size and bits need {needed}; "
    "export the series again",
    "dicom_header": "{name}: {attribute} is missing, unusable or contradicts the pixels; "
    "export the series again",
    "dicom_rounded": "positions are rounded to {mm:g} mm in the header: taken for an even stack",
    "dicom_first": "the first image has number {number}: slices may be missing at one end",
    "dicom_fewer": "{count} of {total} images of the acquisition are here: slices may be missing at one end",
    "dicom_several": "{count} DICOM series in this folder, one is needed; give the folder of one series",
    "dicom_result": "{name}: left out, it is a result of this package",
    "dicom_left": "{name}: left alone, {kind}; name it by --series to work on it all the same",
    "dicom_left_only": "{name}: {kind}, no structural series; name it by --series to work on it all the same",
    "dicom_none_left": "no structural series among {count} ({kinds}); name one by --series to work on it",
    "dicom_kept": "{name}: {kind}, worked on because --series names it",
    "dicom_unknown_contrast": "contrast not recognised from its header: taken as structural",
    "no_such_series": "--series {value}: no such series; there are {known}",
    "series_of_dicom": "--series chooses DICOM series, and there are none",
    "study_contrast": "{contrast}: {name} taken, {spacing} mm; the finest of series {numbers}",
    "study_nothing": "{name}: no series of a contrast that can be used; there are {known}",
    "study_mixed_up": "{name}: its name says {told}, its sequence {seen}: not taken for either",
}

TRAINING = {
    "not_at_target": "{name}: voxels of {spacing} mm, {target:g} mm is needed for ground truth; leave it "
    "out, or resample it if it was acquired that fine",
    "blurred": "for {plane} slices alone: sharpness {value:.2f} across them, below {least:g}: thick slices",
    "two_splits": "{name}: in the splits {splits}; a subject belongs to one",
    "same_file": "the same file under several names: {names}; keep one",
    "no_target": "left out: {target} and one contrast more are needed",
    "other_grid": "{name}: on another grid than {target}; register it to that and resample it",
    "held_out": "{name}: held out of training to validate on, since no volume was left for that",
    "nothing_to_validate": "no volume to validate on: add volumes of a second subject, or list some under "
    "'validation'; training stops without",
    "empty_section": "{name}: no volumes under '{section}'; move those of a subject or two there in the data "
    "list, or let prepare write it from two subjects or more",
    "nothing_to_train": "no volume serves for training: see prepare.csv",
}

_ALL = {**REJECT, **WARN, **CASES, **SERVER, **BUNDLE, **DICOM, **TRAINING}


class InputRejected(ValueError):
    """An input that cannot be worked on; the message is one line: what is wrong and what to do."""


def _short(value: object) -> object:
    """A text of the user's, cut where it would fill the screen."""
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[: LONGEST // 2]}...{value[-LONGEST // 4 :]}"
    return value


def say(key: str, **values: object) -> str:
    """Return message ``key`` with ``values`` filled in, on one line of printable characters."""
    line = _ALL[key].format(**{name: _short(value) for name, value in values.items()})
    return "".join(c if c.isprintable() else "?" for c in line)


def warn(data: dict[Any, Any], line: str) -> None:
    """Log a warning on a case, and add it to ``data["warnings"]``, which the sidecar of its result holds."""
    log.warning("%s: %s", data.get("case", "input"), line)
    data["warnings"] = [*(data.get("warnings") or ()), line]
