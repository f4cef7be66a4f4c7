"""Requests that must be turned down, with a line for the client and nothing read or written elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import requests
from proof import proved

MODEL = "diffensembler_sr"
SECRET = "sub-secret_T1w"


def write_outside(outside: Path, studies: Path) -> None:
    """Put a volume beside the studies folder, and links to it into the studies folder."""
    outside.mkdir()
    shutil.copy(studies / "sub-02_T1w.nii.gz", outside / f"{SECRET}.nii.gz")
    (studies / "linked_T1w.nii.gz").symlink_to(outside / f"{SECRET}.nii.gz")
    os.utime(outside / f"{SECRET}.nii.gz", (1e9, 1e9))


def check(client: Any, url: str, studies: Path, outside: Path) -> None:
    """Everything that a client may try; ``client`` is MONAI Label's."""
    before = _state(outside), _state(studies)
    secret = str(outside / f"{SECRET}.nii.gz")
    here = str(studies / "sub-01_T1w.nii.gz")

    def infer(image: str = "sub-01_T1w", model: str = MODEL, **params: Any) -> requests.Response:
        data = {"params": json.dumps(params)}
        return requests.post(f"{url}/infer/{model}", params={"image": image}, data=data, timeout=600)

    outsiders = {
        "params that replace image by a path outside": infer(**{"image": secret}),
        "a path outside as the image": infer(secret),
        "a path with ..": infer(f"{studies}/../outside/{SECRET}.nii.gz"),
        "an id with ..": infer(f"../outside/{SECRET}"),
        "a link in the studies that leads outside": infer("linked_T1w"),
        "a path inside, by path instead of id": infer(here),
        "a forged session": infer(image=secret, session={"image": secret}),
        "a list of images": infer(image=[secret]),
        "a folder": infer(image=str(outside)),
    }
    for what, answer in outsiders.items():
        _refused(what, answer, ("studies folder", "not a plain file name"), secret)

    _refused("a misspelt parameter", infer(num_step=3), ("did you mean num_steps?",))
    _refused("Python as a parameter", infer(fusion="$__import__('os').getcwd()"), ("one of calibrated",))
    _refused("a reference as a parameter", infer(seed="@num_steps"), ("not a whole number",))
    _refused("no steps", infer(num_steps=0), ("must be 1 or more",))
    _refused("weights by path", infer(weights=secret), ("one of shipped",), secret)
    _refused("another model file", infer(model_filename="../x.pt"), ("no such parameter",))
    _refused("a model that is not there", infer(model="m"), (f"this server has {MODEL}",))
    _refused("a device that is not there", infer(device="tpu"), ("device: 'tpu' is not one of",))
    _refused("half a file", infer("cut_T1w"), ("cut_T1w.nii.gz: truncated or corrupt",))
    _refused("an image of one value", infer("flat_T1w"), ("every voxel has the value 7",))
    _refused("a scan that is sharp already", infer("sub-02_T1w"), ("nothing to do",))

    def send(method: str, path: str, files: Any = None, **params: str) -> requests.Response:
        return requests.request(method, f"{url}{path}", params=params, files=files, timeout=60)

    volume = ("a.nii.gz", Path(here).read_bytes())
    wrong = ("a.nii.gz", b"not an image")
    _refused("an upload to ..", send("PUT", "/datastore/image", {"file": volume}, image="../up"), ("plain",))
    _refused(
        "an upload over a link",
        send("PUT", "/datastore/image", {"file": volume}, image="linked_T1w"),
        ("studies",),
    )
    _refused(
        "an upload that is no image", send("PUT", "/datastore/image", {"file": wrong}, image="new"), ("new",)
    )
    _refused(
        "a label to ..",
        send("PUT", "/datastore/label", {"label": volume}, image="sub-01_T1w", tag="../../../outside"),
        ("plain",),
    )
    _refused("a label from ..", send("GET", "/datastore/label", label="sub-01_T1w", tag="../.."), ("plain",))
    _refused("an image from ..", send("GET", "/datastore/image", image=f"../outside/{SECRET}"), ("plain",))
    _refused("the deletion of ..", send("DELETE", "/datastore/image", id=f"../outside/{SECRET}"), ("plain",))
    _refused("a session from ..", send("GET", "/session/..%2f..%2foutside"), ("Not Found", "plain"))
    _refused(
        "a session of another name", send("POST", f"/infer/{MODEL}", session_id="../../outside"), ("plain",)
    )
    _refused(
        "other weights for a model", send("PUT", f"/model/{MODEL}", {"file": wrong}), ("NOT configured",)
    )
    _refused("the deletion of weights", send("DELETE", f"/model/{MODEL}"), ("NOT Found",))
    slide = requests.post(f"{url}/infer/wsi/{MODEL}", params={"image": secret}, json={}, timeout=60)
    _refused("whole-slide inference, which takes any path", slide, ("not offered",))
    page = requests.get(f"{url}/info/", headers={"Origin": "http://elsewhere.example"}, timeout=60)
    _refused("a web page of another origin", page, ("another origin",))
    renamed = requests.get(f"{url}/info/", headers={"Host": "elsewhere.example"}, timeout=60)
    _refused("this server under another name", renamed, ("another origin",))
    own = requests.get(f"{url}/info/", headers={"Origin": url}, timeout=60)
    proved("its own pages are answered", own.ok)
    raw = _raw(
        url, f"DELETE /session/.. HTTP/1.1\r\nHost: {urlparse(url).netloc}\r\nConnection: close\r\n\r\n"
    )
    proved(f"refused: the deletion of a session named .. ({raw})", " 404 " in raw)

    proved("refused: outside, nothing was read or written", _state(outside) == before[0])
    proved("refused: in the studies, nothing is new or gone", set(_state(studies)) == set(before[1]))


def check_log(log: Path) -> None:
    """The server's log has no image's name and no traceback of a refusal."""
    text = log.read_text(encoding="utf-8", errors="replace")
    found = [line for line in text.splitlines() if SECRET in line]
    proved("log: no outside image is named", not found)
    proved("log: no traceback", "Traceback" not in text)


def check_nothing_is_left(studies: Path) -> None:
    """Uploads, results in transit and training data are gone."""
    left = [
        str(path.relative_to(studies))
        for name in ("requests", "temporary", "training", "sessions")
        for path in (studies / ".monailabel" / name).rglob("*")
        if path.is_file()
    ]
    proved(
        f"nothing in transit is left in the studies folder{': ' if left else ''}{' '.join(left)}", not left
    )


def check_stopped(url: str) -> None:
    """The port is free again."""
    with socket.socket() as probe:
        proved("the server is stopped", probe.connect_ex(("127.0.0.1", urlparse(url).port)) != 0)


def _refused(what: str, answer: requests.Response, lines: tuple[str, ...], unsaid: str = "\0") -> None:
    told = (
        answer.json().get("detail", "") if "json" in answer.headers.get("content-type", "") else answer.text
    )
    good = not answer.ok and any(line in told for line in lines) and unsaid not in told and len(told) < 400
    proved(f"refused: {what} ({answer.status_code}: {told})", good)


def _raw(url: str, request: str) -> str:
    """First line of the answer to a request that a client library would tidy first."""
    address = urlparse(url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(request.encode())
        return connection.recv(4096).decode(errors="replace").splitlines()[0]


def _state(folder: Path) -> dict[str, tuple[float, ...]]:
    """Size, times of change and of reading of every file; the app's own folder apart."""
    state = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and ".monailabel" not in path.parts:
            status = path.stat()
            state[str(path)] = (status.st_size, status.st_mtime, status.st_atime)
    return state
