"""Headless Chromium through its debugging protocol: opens pages from disk, with every other machine out of reach.

Needs websocket-client, of the extra `test`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pdf  # of the book

FLAGS = (
    *pdf.OFFLINE,
    "--hide-scrollbars",
    "--allow-file-access-from-files=false",
    "--remote-allow-origins=*",
    "--remote-debugging-port=0",
)
PATIENCE = 600  # seconds until a page or an answer counts as lost, on however busy a machine


@contextlib.contextmanager
def opened() -> Iterator[Browser]:
    """A browser with one empty page."""
    import websocket

    with tempfile.TemporaryDirectory(prefix="sarlib-browser-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [pdf.browser(), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port = _port(Path(profile) / "DevToolsActivePort", process)
            socket = websocket.create_connection(_page(port), timeout=PATIENCE)
            try:
                yield Browser(socket)
            finally:
                socket.close()
        finally:
            process.terminate()
            process.wait()


def _port(file: Path, process: subprocess.Popen) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if file.exists() and (lines := file.read_text().splitlines()):
            return lines[0]
        time.sleep(0.05)
    raise RuntimeError(f"Chromium did not start: exit code {process.poll()}")


def _page(port: str) -> str:
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    targets = json.load(opener.open(f"http://127.0.0.1:{port}/json/list"))
    return next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")


class Browser:
    """One page: `open` it, look at it (`run`), press keys, take its picture; `requests` and `messages` since it was opened."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.count = socket, 0
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.loaded = False
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command; events that come before it are noted."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            heard = json.loads(self.socket.recv())
            if heard.get("id") == self.count:
                if "error" in heard:
                    raise RuntimeError(f"{method}: {heard['error']['message']}")
                return heard["result"]
            self._note(heard)

    def _note(self, event: dict[str, Any]) -> None:
        values = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(values["request"]["url"])
            case "Runtime.exceptionThrown":
                details = values["exceptionDetails"]
                self.messages.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled":
                self.messages.append(" ".join(str(one.get("value", "")) for one in values["args"]))
            case "Log.entryAdded":
                self.messages.append(values["entry"]["text"])
            case "Page.loadEventFired":
                self.loaded = True

    def open(self, path: Path, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a page from disk at this size and wait until its formulas are there."""
        self.requests, self.messages, self.loaded = [], [], False
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.loaded:
            self._note(json.loads(self.socket.recv()))
        self.run("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => 0) : 0")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, or what its promise comes to."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", expression))
        return answer["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys by name on what has the focus."""
        codes = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowUp": 38, "ArrowDown": 40, "Enter": 13, "Tab": 9, " ": 32}
        for key in keys:
            text = {"Enter": "\r", " ": " "}.get(key, "")
            same = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": codes[key]}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **same)
            self.call("Input.dispatchKeyEvent", type="keyUp", **same)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Save a screenshot, of the window or of the whole page."""
        clip = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 12000), "scale": 1}}
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)
        path.write_bytes(base64.b64decode(found["data"]))
