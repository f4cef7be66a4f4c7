"""A headless browser without a network, driven by the plain HTTP of chromedriver."""

import base64
import io
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imread
from numpy.typing import NDArray

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--hide-scrollbars",
]
WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


class Browser:
    """One window; closes with the context."""

    def __init__(self, profile: Path, webgl: bool = True) -> None:
        self.driver = subprocess.Popen(
            [str(DRIVER), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.driver.stdout is not None
        line = next(line for line in self.driver.stdout if "started successfully on port" in line)
        self.base = f"http://127.0.0.1:{line.rstrip().rstrip('.').rsplit(' ', 1)[1]}/session"
        arguments = [*FLAGS, *(WEBGL if webgl else ["--disable-3d-apis"]), f"--user-data-dir={profile}"]
        options = {"goog:chromeOptions": {"args": arguments, "binary": CHROMIUM}}
        wanted = {"alwaysMatch": options | {"goog:loggingPrefs": {"browser": "ALL"}}}
        self.base += "/" + self.call("POST", "", {"capabilities": wanted})["sessionId"]

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(20)
            assert self.driver.stdout is not None
            self.driver.stdout.close()

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"})
        request.method = method
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width: int, height: int) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def dark(self, dark: bool) -> None:
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[feature])

    def open(self, page: Path) -> None:
        self.call("POST", "/url", {"url": page.as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Until the JavaScript expression holds."""
        end = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < end, f"{condition}: not within {seconds} s; {self.errors()}"
            time.sleep(0.05)

    def errors(self) -> list[str]:
        """What the console called an error since the last call."""
        entries = self.call("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def settle(self) -> None:
        """A frame for what waits for the next one, and one to draw it."""
        script = "const done = arguments[0], next = requestAnimationFrame;"
        script += "next(() => next(() => setTimeout(done, 50)))"
        self.call("POST", "/execute/async", {"script": script, "args": []})

    def keys(self, *keys: str) -> None:
        """Press keys one after the other on what has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def pixels(self, selector: str) -> NDArray[np.integer]:
        """What is drawn in an element, (rows, columns, 3), 0 to 255."""
        box = self.run(
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [box.left, box.top, box.right, box.bottom]",
            selector,
        )
        left, top, right, bottom = (max(0, round(side)) for side in box)
        window = np.round(imread(io.BytesIO(self.shot()))[..., :3] * 255).astype(int)
        return window[top:bottom, left:right]

    def shot(self, path: Path | None = None) -> bytes:
        """A PNG of the window."""
        png = base64.b64decode(self.call("GET", "/screenshot"))
        if path is not None:
            path.write_bytes(png)
        return png
