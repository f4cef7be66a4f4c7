"""What the app promises, shown on a real server with MONAI Label's own client: `make label-test`.

Prints a line for everything that held, and stops at the first that did not.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import refusals
import requests
import translation
from proof import proved
from scans import THICKNESS, write_studies
from server import APP, command, environment, free_port, running_server

warnings.filterwarnings("ignore", category=DeprecationWarning)  # MONAI Label's client imports cgi
from monailabel.client import MONAILabelClient  # noqa: E402

MODEL = "diffensembler_sr"
TRAINING = {"max_epochs": 1, "iterations": 2, "batch_size": 1, "draws": 1}
TRAINING_SECONDS = 3600  # on a busy machine


def check_info(client: MONAILabelClient, folder: Path) -> set[str]:
    """Every bundle that has weights, with its parameters; returns their names."""
    info = client.info()
    bundles = {path.parents[1].name for path in folder.glob("*/models/model.pt")}
    proved(f"info: every bundle is listed: {', '.join(sorted(bundles))}", set(info["models"]) == bundles)
    for name in sorted({path.parents[1].name for path in folder.glob("*/configs/inference.json")} - bundles):
        print(f"not listed, and not shown: {name}, which has no weights here")
    for name, model in info["models"].items():
        wanted = {"num_steps", "num_samples", "seed", "fusion", "publish"}
        proved(
            f"info: {name} offers {', '.join(sorted(wanted))}; viewers are not told that it segments",
            wanted <= set(model["config"]) and model["type"] == "others" and model["labels"] == [],
        )
    proved("info: each can be fine-tuned", set(info["trainers"]) == bundles)
    return bundles


def check_super_resolution(client: MONAILabelClient, studies: Path) -> np.ndarray:
    """Grid, place and intensities of a result, whose voxels are returned."""
    file, facts = client.infer(MODEL, "sub-01_T1w", dict(translation.VIEWER))
    scan, result = nib.load(studies / "sub-01_T1w.nii.gz"), nib.load(file)
    voxels = result.get_fdata(dtype=np.float32)
    proved(
        f"infer: the result has its own grid, {scan.shape} became {result.shape}",
        result.shape == (*scan.shape[:2], scan.shape[2] * THICKNESS),
    )
    spacing = nib.affines.voxel_sizes(result.affine)
    proved("infer: of 1 mm in every direction", np.allclose(spacing, 1, atol=1e-4))
    corners = [_corners(image) for image in (scan, result)]
    shift = float(np.abs(corners[0] - corners[1]).max())
    proved(f"infer: over the same place, corners of the field of view within {shift:.2g} mm", shift < 1e-3)
    proved(
        "infer: float32 with fractions, though uint8 was asked for",
        result.get_data_dtype() == np.float32 and bool((voxels % 1 != 0).any()),
    )
    again = voxels.reshape(*scan.shape, THICKNESS).mean(-1)
    error = float(np.abs(again - scan.get_fdata()).mean() / scan.get_fdata().max())
    proved(f"infer: sliced thick again it is the scan, mean error {error:.2%} of the maximum", error < 0.01)
    proved(
        "infer: marked as synthetic, in the file and in the answer",
        b"synthetic" in bytes(result.header["descrip"]) and facts["Synthetic"] is True,
    )
    return voxels


def check_parameters(client: MONAILabelClient, studies: Path, default: np.ndarray, bundles: Path) -> None:
    """They are taken, and do what they do on the command line."""
    same, _ = client.infer(MODEL, "sub-01_T1w", {"num_steps": "1", "seed": 0, "fusion": "calibrated"})
    proved("infer: asked again with the defaults, the same voxels", np.array_equal(_voxels(same), default))
    asked = {"num_steps": 2, "seed": 5, "fusion": "axial", "num_samples": 2}
    file, facts = client.infer(MODEL, "sub-01_T1w", dict(asked))  # the client adds to it
    proved(
        f"infer: {asked} is taken and changes the result",
        asked.items() <= facts["Parameters"].items() and not np.array_equal(_voxels(file), default),
    )
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--{name}={value}" for name, value in asked.items()]
        options += ["--input", str(studies / "sub-01_T1w.nii.gz"), "--output_dir", folder]
        bundle = ["--bundle_root", str(bundles / MODEL)]
        bundle += ["--config_file", str(bundles / MODEL / "configs" / "inference.json")]
        run = [sys.executable, "-m", "monai.bundle", "run", "inference", *bundle, *options]
        subprocess.run(run, check=True, capture_output=True)
        other = Path(folder) / "sub-01_T1w_sr.nii.gz"
        proved(
            "infer: the bundle's command line gives the same voxels",
            np.array_equal(_voxels(other), _voxels(file)),
        )


def check_uploads_and_publishing(client: MONAILabelClient, studies: Path, default: np.ndarray) -> None:
    """A volume that is sent along, and a result that becomes an image of the studies."""
    scan = studies / "sub-01_T1w.nii.gz"
    session = client.create_session(str(scan))["session_id"]
    first, _ = client.infer(MODEL, "", {}, session_id=session)
    second, _ = client.infer(MODEL, "", {}, file=str(scan))
    proved(
        "infer: a volume that a viewer sends along, twice: the same voxels",
        _voxels(first).shape == default.shape and np.array_equal(_voxels(first), _voxels(second)),
    )
    client.remove_session(session)
    check_slicer_request(client, scan, _voxels(first))
    _, facts = client.infer(MODEL, "sub-01_T1w", {"publish": True})
    name = facts["published"]
    image = studies / f"{name}.nii.gz"
    proved(
        f"publish: the result is an image of the studies, {name}",
        name in client.datastore()["objects"] and np.array_equal(_voxels(image), default),
    )
    proved("publish: readable by its owner alone", image.stat().st_mode & 0o777 == 0o600)
    client.infer(MODEL, "sub-01_T1w", {"publish": True})
    proved("publish: again replaces it", np.array_equal(_voxels(image), default))


def check_slicer_request(client: MONAILabelClient, scan: Path, expected: np.ndarray) -> None:
    """The request of slicer/sharpen_volume.py: a volume sent along, the image alone for an answer."""
    with scan.open("rb") as file, tempfile.NamedTemporaryFile(suffix=".nii.gz") as answer:
        reply = requests.post(
            f"{client.get_server_url()}/infer/{MODEL}",
            params={"output": "image"},
            data={"params": json.dumps({"num_steps": 1})},
            files={"file": ("volume.nii.gz", file)},
            timeout=3600,
        )
        answer.write(reply.content)
        answer.flush()
        proved("infer: the Slicer script's request", np.array_equal(_voxels(answer.name), expected))


def check_fine_tuning(client: MONAILabelClient, default: np.ndarray) -> None:
    """A real one, short; and one with a wrong parameter."""
    failed = _train(client, MODEL, {"max_epochs": "$1"})
    proved("train: a wrong parameter ends in ERROR, with the reason", failed["status"] == "ERROR")
    proved("train: ... which a client can read", "max_epochs: '$1' is not a whole number" in _details(failed))
    begin = time.monotonic()
    done = _train(client, MODEL, TRAINING)
    seconds = time.monotonic() - begin
    if done["status"] != "DONE":
        print(_details(done))
    proved(f"train: started and finished in {seconds:.0f} s, {TRAINING}", done["status"] == "DONE")
    proved(
        "train: on the four sharp images, not on the thick or the published",
        " on 4 images;" in _details(done),
    )
    choices = client.info()["models"][MODEL]["config"]["weights"]
    proved(f"train: its weights are a choice now: {choices}", choices == ["shipped", "fine-tuned"])
    tuned, facts = client.infer(MODEL, "sub-01_T1w", {"weights": "fine-tuned"})
    shipped, _ = client.infer(MODEL, "sub-01_T1w", {})
    proved(
        "train: they give another result; the shipped ones give the same as before",
        not np.array_equal(_voxels(tuned), default)
        and np.array_equal(_voxels(shipped), default)
        and facts["Parameters"]["weights"] == "fine-tuned",
    )


def check_network_is_refused(studies: Path) -> None:
    """Without authentication, MONAI Label's default of all interfaces is too open."""
    start = command(studies, "0.0.0.0", free_port())
    done = subprocess.run(start, env=environment(), capture_output=True, text=True, timeout=600, check=False)
    told = "not started: on 0.0.0.0 anyone on the network could read the studies" in done.stdout + done.stderr
    proved("start: on all interfaces it does not start, and says why", done.returncode != 0 and told)


def _train(client: MONAILabelClient, model: str, parameters: dict[str, object]) -> dict[str, object]:
    client.train_start(model, dict(parameters))
    end = time.monotonic() + TRAINING_SECONDS
    while time.monotonic() < end:
        time.sleep(2)
        status = client.train_status()
        if status["status"] not in ("SUBMITTED", "RUNNING"):
            return dict(status)
    client.train_stop()
    raise SystemExit(f"no end of the fine-tuning in {TRAINING_SECONDS} s")


def _details(status: dict[str, object]) -> str:
    return "\n".join(status.get("details") or [])  # type: ignore[arg-type]


def _voxels(path: str | Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def _corners(image: nib.Nifti1Image) -> np.ndarray:
    ends = [(-0.5, size - 0.5) for size in image.shape]
    return nib.affines.apply_affine(
        image.affine, np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
    )


def main() -> None:
    """Run everything in a folder of its own, which is removed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip_training", action="store_true", help="leave the fine-tuning out")
    default = APP.parent / "bundles"
    parser.add_argument(
        "--bundles", type=Path, default=default, help="folder of bundles; default: the project's"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is stopped
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        studies, outside = Path(folder) / "studies", Path(folder) / "outside"
        write_studies(studies)
        refusals.write_outside(outside, studies)
        bundles = arguments.bundles.resolve()
        with running_server(studies, Path(folder) / "server.log", bundles) as url:
            client = MONAILabelClient(url, tempfile.mkdtemp(dir=folder))
            print(f"server answers after {time.monotonic() - begin:.0f} s")
            listed = check_info(client, bundles)
            default = check_super_resolution(client, studies)
            check_parameters(client, studies, default, bundles)
            check_uploads_and_publishing(client, studies, default)
            refusals.check(client, url, studies, outside)
            if not arguments.skip_training:
                check_fine_tuning(client, default)
            if translation.MODEL in listed:
                translation.check(client, url, studies)
                if not arguments.skip_training:
                    translation.check_fine_tuning(client, studies, partial(_train, client), TRAINING)
            refusals.check_log(Path(folder) / "server.log")
        refusals.check_stopped(url)
        refusals.check_nothing_is_left(studies)
        check_network_is_refused(studies)
    print(f"all held, in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
