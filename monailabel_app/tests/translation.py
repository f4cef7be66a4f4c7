"""The translation bundle on the server: several contrasts of a patient in, a new one out, fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import requests
from proof import proved
from scans import AFFINE, THICKNESS, head, write

MODEL = "diffensembler_translate"
# What a viewer asks for, which would leave nothing of an image.
VIEWER = {"result_dtype": "uint8", "result_extension": ".nrrd", "result_compress": False}
Train = Callable[[str, dict[str, object]], dict[str, Any]]


def check(client: Any, url: str, studies: Path) -> None:
    """All contrasts of a patient are found by the name of one; the result is a FLAIR on their grid."""
    file, facts = client.infer(MODEL, "sub-04_T1w", dict(VIEWER))
    result, scan = nib.load(file), nib.load(studies / "sub-04_T1w.nii.gz")
    voxels = np.asarray(result.dataobj)
    proved(
        f"translate: {result.shape} on the grid of the T1w, voxel by voxel",
        result.shape == scan.shape and np.allclose(result.affine, scan.affine, atol=1e-4),
    )
    proved(
        "translate: float32 with fractions, though uint8 was asked for",
        result.get_data_dtype() == np.float32 and bool((voxels % 1 != 0).any()),
    )
    brain = scan.get_fdata() > 0
    proved(
        "translate: an image inside of the head, 0 outside",
        bool((voxels[brain] > 0).mean() > 0.9) and not voxels[~brain].any(),
    )
    names = [f"sub-04_{contrast}.nii.gz" for contrast in ("T1w", "T2w", "FLAIR")]
    proved(f"translate: from {', '.join(names)}", facts["SynthesizedFrom"] == names)
    proved(
        "translate: named as synthetic: the file, its header and the answer",
        "desc-synthetic_FLAIR" in Path(file).name
        and b"synthetic" in bytes(result.header["descrip"])
        and facts["Synthetic"] is True
        and facts["Model"] == MODEL,
    )
    thick = nib.load(studies / "sub-04_FLAIR.nii.gz").get_fdata()
    inside = brain.reshape(*thick.shape, THICKNESS).all(-1)
    again = voxels.reshape(*thick.shape, THICKNESS).mean(-1)
    error = float(np.abs(again - thick)[inside].mean() / thick.max())
    proved(
        f"translate: sliced thick it is the FLAIR scan, mean error {error:.2%} of the maximum", error < 0.01
    )

    other, _ = client.infer(MODEL, "sub-04_FLAIR", {})
    same = np.array_equal(np.asarray(nib.load(other).dataobj), voxels)
    proved("translate: the same, asked for by another contrast", same)
    alone, facts = client.infer(MODEL, "sub-01_T1w", {})
    proved(
        "translate: a patient with one contrast",
        facts["SynthesizedFrom"] == ["sub-01_T1w.nii.gz"] and nib.load(alone).shape == scan.shape,
    )
    chosen, facts = client.infer(MODEL, "sub-04_T1w", {"fusion": "T2w", "publish": True})
    published = studies / f"{facts['published']}.nii.gz"
    proved(
        f"translate: fusion of one contrast, published as {facts['published']}",
        np.array_equal(np.asarray(nib.load(published).dataobj), np.asarray(nib.load(chosen).dataobj)),
    )
    third, facts = client.infer(MODEL, "sub-04_T2w", {})
    proved(
        "translate: a published result is no contrast of its patient",
        facts["SynthesizedFrom"] == names and np.array_equal(np.asarray(nib.load(third).dataobj), voxels),
    )

    def refused(what: str, line: str, image: str = "", **request: Any) -> None:
        answer = requests.post(f"{url}/infer/{MODEL}", params={"image": image}, timeout=600, **request)
        told = answer.json().get("detail", "")
        proved(f"translate: refused: {what} ({answer.status_code}: {told})", not answer.ok and line in told)

    lacking = {"params": json.dumps({"fusion": "ce-gadolinium_T1w"})}
    refused("a contrast that the patient lacks", "expected one of ce-", "sub-04_T1w", data=lacking)
    volume = ("a.nii.gz", (studies / "sub-04_T1w.nii.gz").read_bytes())
    refused("an upload, whose name tells no patient", "PATIENT_CONTRAST", files={"file": volume})


def check_fine_tuning(client: Any, studies: Path, train: Train, settings: dict[str, object]) -> None:
    """It learns from patients whose FLAIR is sharp and lies on another contrast's grid; else it says so."""
    failed = train(MODEL, dict(settings))
    told = "\n".join(failed.get("details") or [])
    line = "no patient to learn from: add images named PATIENT_FLAIR and PATIENT_CONTRAST"
    proved("translate, train: no sharp FLAIR, ends in ERROR with the reason", failed["status"] == "ERROR")
    proved("translate, train: ... which a client can read", line in told)
    for contrast, seed in (("T1w", 5), ("FLAIR", 6)):
        write(head(seed), AFFINE, studies / f"sub-05_{contrast}.nii.gz")
    client.datastore()
    done = train(MODEL, dict(settings))
    told = "\n".join(done.get("details") or [])
    if done["status"] != "DONE":
        print(told)
    proved(f"translate, train: started and finished, {settings}", done["status"] == "DONE")
    proved("translate, train: on the two images of the one patient", " on 2 images;" in told)
    _, facts = client.infer(MODEL, "sub-04_T1w", {"weights": "fine-tuned"})
    proved("translate, train: its weights are used", facts["Parameters"]["weights"] == "fine-tuned")
