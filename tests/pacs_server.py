"""A real PACS for tests: Orthanc, with the few requests of DICOMweb and C-STORE that a test needs."""

import email.parser
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
HOST, TITLE = "127.0.0.1", "TESTPACS"
START_S = 60


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Pacs:
    """Orthanc in a folder of its own, for the length of a ``with`` block, for loopback alone."""

    def __init__(self, folder: Path) -> None:
        missing = [tool for tool in ("Orthanc", "storescu", "echoscu") if shutil.which(tool) is None]
        if missing or not PLUGIN.exists():
            raise SystemExit(f"not installed: {missing or PLUGIN}; run .ci/install-dicom-tools")
        self.folder, self.http, self.dicom = folder, free_port(), free_port()
        self.url = f"http://{HOST}:{self.http}/dicom-web"

    def __enter__(self) -> "Pacs":
        self.folder.mkdir(parents=True)
        settings = {
            "Name": TITLE,
            "DicomAet": TITLE,
            "DicomPort": self.dicom,
            "HttpPort": self.http,
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [str(PLUGIN)],
            "RemoteAccessAllowed": False,  # HTTP from this machine alone
            "AuthenticationEnabled": False,
            "DicomModalities": {"TESTER": ["TESTER", HOST, free_port()]},
            "DicomAlwaysAllowStore": False,  # C-STORE from that one title at that address alone
            "DicomAlwaysAllowEcho": False,
            "DicomCheckModalityHost": True,
            "DicomWeb": {"Enable": True},
        }
        (self.folder / "orthanc.json").write_text(json.dumps(settings))
        self.log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(
            ["Orthanc", str(self.folder / "orthanc.json")], stdout=self.log, stderr=self.log
        )
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def store(self, folder: Path) -> None:
        """C-STORE every file in a folder."""
        command = ["storescu", "-aet", "TESTER", "-aec", TITLE, "+sd", HOST, str(self.dicom), str(folder)]
        subprocess.run(command, check=True, capture_output=True)

    def query(self, path: str, **match: str) -> list[dict[str, Any]]:
        """QIDO-RS: the datasets in DICOM JSON that match."""
        answer, _ = self._request(f"{path}?{urllib.parse.urlencode(match)}", accept="application/dicom+json")
        return json.loads(answer or "[]")

    def retrieve(self, study: str, series: str, folder: Path) -> Path:
        """WADO-RS: pull a series into files."""
        answer, kind = self._request(
            f"studies/{study}/series/{series}", accept='multipart/related; type="application/dicom"'
        )
        head = f"Content-Type: {kind}\r\n\r\n".encode()
        folder.mkdir(parents=True)
        for number, part in enumerate(email.parser.BytesParser().parsebytes(head + answer).walk()):
            if not part.is_multipart():
                (folder / f"{number}").write_bytes(part.get_payload(decode=True))
        return folder

    def send(self, files: Sequence[Path]) -> None:
        """STOW-RS: store files."""
        mark = uuid.uuid4().hex
        body = b"".join(
            f"--{mark}\r\nContent-Type: application/dicom\r\n\r\n".encode() + file.read_bytes() + b"\r\n"
            for file in files
        )
        kind = f'multipart/related; type="application/dicom"; boundary={mark}'
        answer, _ = self._request(
            "studies", body + f"--{mark}--\r\n".encode(), accept="application/dicom+json", kind=kind
        )
        failed = json.loads(answer).get("00081198", {}).get("Value", [])  # Failed SOP Sequence
        if failed:
            raise RuntimeError(f"the PACS refused {len(failed)} instances: {failed[0]}")

    def _request(
        self, path: str, body: bytes | None = None, *, accept: str, kind: str | None = None
    ) -> tuple[bytes, str]:
        headers = {"Accept": accept} | ({"Content-Type": kind} if kind else {})
        request = urllib.request.Request(f"{self.url}/{path}", body, headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read(), answer.headers["Content-Type"]

    def _wait(self) -> None:
        """Until it answers on both protocols."""
        echo = ["echoscu", "-aet", "TESTER", "-aec", TITLE, HOST, str(self.dicom)]
        end = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < end:
            try:
                self.query("studies")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
                continue
            if subprocess.run(echo, capture_output=True, check=False).returncode == 0:
                return
        raise RuntimeError(
            f"Orthanc did not start: {(self.folder / 'log').read_text(errors='replace')[-800:]}"
        )

    def _stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
