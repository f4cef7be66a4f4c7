"""Requests that must be turned down, with a line for the client and nothing read or written elsewhere."""

from __future__ import annotations

import gzip
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
    _refused("no steps", infer(num_steps=0), ("not a whole number from 1",))
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
    _refused("other weights for a model", send("PUT", f"/model/{MODEL}", {"file": wrong}), ("not offered",))
    _refused("the deletion of weights", send("DELETE", f"/model/{MODEL}"), ("not offered",))
    slide = requests.post(f"{url}/infer/wsi/{MODEL}", params={"image": secret}, json={}, timeout=60)
    _refused("whole-slide inference, which takes any path", slide, ("not offered",))
    check_taken_names(send, studies, volume)
    check_labels(send, studies, volume)
    check_malformed(url, here, send)
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


def check_taken_names(send: Any, studies: Path, volume: tuple[str, bytes]) -> None:
    """An upload never takes the place of another image, however its name is spelt."""
    before = {path.name: path.read_bytes() for path in studies.glob("*.nii*") if not path.is_symlink()}
    for name in ("sub-02_T1w", "SUB-02_t1w", "sub-02_T1w.nii.gz", "sub-02_T1w.nii"):
        for ending in (".nii.gz", ".nii"):
            content = volume[1] if ending == ".nii.gz" else gzip.decompress(volume[1])
            sent = send("PUT", "/datastore/image", {"file": (f"a{ending}", content)}, image=name)
            _refused(f"an upload of {ending} as {name}", sent, ("has that name already", "plain file name"))
    after = {path.name: path.read_bytes() for path in studies.glob("*.nii*") if not path.is_symlink()}
    proved("refused: ... and every image is as it was", after == before)
    sent = send("PUT", "/datastore/image", {"file": volume}, image="sub-09_T1w")
    proved("an upload under a new name is taken", sent.ok and sent.json() == {"image": "sub-09_T1w"})
    again = send("PUT", "/datastore/image", {"file": volume}, image="sub-09_T1w")
    _refused("the same upload again", again, ("has that name already",))
    proved("refused: ... with status 409", again.status_code == 409)
    mode = (studies / "sub-09_T1w.nii.gz").stat().st_mode & 0o777
    proved(f"an upload is its owner's alone: {mode:o}", mode == 0o600)
    proved("it is deleted again", send("DELETE", "/datastore/image", id="sub-09_T1w").ok)


def check_labels(send: Any, studies: Path, volume: tuple[str, bytes]) -> None:
    """What is no NIfTI volume is not kept as a label, whatever it is called."""
    wrong = {
        "text": b"not an image",
        "nothing": b"",
        "half a file": volume[1][: len(volume[1]) // 2],
        "an archive": b"PK\x03\x04" + bytes(100),
        "a packed text": gzip.compress(b"not an image" * 100),
    }
    for what, content in wrong.items():
        for ending in (".nii.gz", ".nii", ".txt", ""):
            file = (f"label{ending}", content)
            sent = send("PUT", "/datastore/label", {"label": file}, image="sub-01_T1w", tag="final")
            _refused(f"a label that is {what}, called label{ending}", sent, ("label", "not offered"))
    proved("refused: ... and none is kept", not list((studies / "labels").rglob("sub-01*")))
    sent = send("PUT", "/datastore/label", {"label": volume}, image="sub-01_T1w", tag="final")
    (kept,) = (studies / "labels").rglob("sub-01*")
    proved("a label that is a volume is kept, its owner's alone", sent.ok and kept.stat().st_mode & 0o77 == 0)
    _refused(
        "a label of no image",
        send("PUT", "/datastore/label", {"label": volume}, image="nobody", tag="final"),
        ("no such image",),
    )
    proved("it is deleted again", send("DELETE", "/datastore/label", id="sub-01_T1w", tag="final").ok)


def check_malformed(url: str, here: str, send: Any) -> None:
    """What cannot be read is a 4xx with one line."""
    for params in ("{", "[1]", "1", '"x"', "null]", "[" * 20000, '{"seed": ' * 5000):
        data = {"params": params}
        answers = [
            requests.post(f"{url}/infer/{MODEL}", params={"image": "sub-01_T1w"}, data=data, timeout=600),
            requests.put(
                f"{url}/datastore/image/info", params={"image": "sub-01_T1w"}, data={"info": params}
            ),
        ]
        with open(here, "rb") as file:
            answers.append(
                requests.put(
                    f"{url}/datastore/image", params={"image": "new"}, data=data, files={"file": file}
                )
            )
        with open(here, "rb") as file:
            answers.append(
                requests.put(
                    f"{url}/datastore/label",
                    params={"image": "sub-01_T1w"},
                    data=data,
                    files={"label": ("l.nii.gz", file)},
                )
            )
        for answer in answers:
            _refused(f"params {params[:12]}", answer, ("request", "parameter"))
            proved(f"refused: ... as the client's fault ({answer.status_code})", answer.status_code < 500)
    for method, path, options in (
        ("GET", "/proxy/dicom/wado/studies", {}),
        ("POST", "/proxy/dicom/http:/127.0.0.1:1/", {}),
        ("POST", f"/infer/{MODEL}", {}),
        ("POST", f"/infer/{MODEL}", {"image": "sub-01_T1w", "output": "dicom_seg"}),
        ("POST", "/activelearning/nothing", {}),
        ("GET", "/datastore/dataset", {}),
        ("POST", "/batch/infer/x", {"run_sync": "true"}),
        ("POST", "/train/nothing", {"run_sync": "true"}),
        ("POST", "/scoring/nothing", {"run_sync": "true"}),
        ("POST", "/reload", {}),
        ("GET", "/logs/gpu", {}),
        ("PUT", "/datastore/label/info", {"label": "nobody", "tag": "final"}),
        ("PUT", "/datastore/image/info", {"image": "nobody"}),
        ("HEAD", "/datastore/image", {"image": "sub-01_T1w", "check_sum": "none:1"}),
        ("GET", "/datastore/image", {"image": "x\0y"}),
    ):
        answer = requests.request(method, f"{url}{path}", params=options, timeout=60)
        good = 400 <= answer.status_code < 500 and "\n" not in answer.text and len(answer.text) < 400
        proved(f"refused: {method} {path} {options} ({answer.status_code}: {answer.text})", good)
    for host in ("[", "[::1", "a b", "127.0.0.1:x"):
        line = _raw(url, f"GET /info/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        proved(f"refused: the host {host} ({line})", line.split()[1][0] == "4")
    own = urlparse(url).netloc
    line = _raw(url, f"GET /info/ HTTP/1.1\r\nHost: {own}\r\nOrigin: http://[\r\nConnection: close\r\n\r\n")
    proved(f"refused: the origin http://[ ({line})", line.split()[1][0] == "4")
    proved("the server is still there", requests.get(f"{url}/info/", timeout=60).ok)


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
