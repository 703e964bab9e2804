"""A browser without a window, for looking at pages: Chromium, spoken to through a pipe, with no library between."""

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""None where there is none: what a page's script draws is then not looked at."""

_SECONDS = 60


class Browser:
    """One page of one Chromium, by the Chrome DevTools Protocol (https://chromedevtools.github.io/devtools-protocol/).

    Args:
        width: Of the window, in CSS pixels.
        height: Likewise.
    """

    def __init__(self, width=1400, height=1000):
        assert CHROMIUM is not None
        self._folder = tempfile.TemporaryDirectory(prefix="naskd-browser-")
        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        # Its pipes are the numbers 3 and 4, whatever they are here.
        start = f'exec 3<&{reads} 4>&{writes}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", start, "bash", CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run", "--hide-scrollbars", "--force-color-profile=srgb",
             f"--user-data-dir={self._folder.name}/profile", "--remote-debugging-pipe", "about:blank"],
            pass_fds=(reads, writes), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(reads)
        os.close(writes)
        self._numbers = itertools.count(1)
        self._rest = b""
        self._events = []
        self.errors = []
        """What the page's scripts have thrown, and what its policy has refused."""
        self._session = None
        targets = self._send("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = self._send("Target.attachToTarget", targetId=page["targetId"], flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")
        self.downloads = Path(self._folder.name) / "downloads"
        self.downloads.mkdir()
        self._send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.resize(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(OSError, EOFError):
            self._send("Browser.close")
        self._process.wait(timeout=_SECONDS)
        os.close(self._to)
        os.close(self._from)
        with suppress(OSError):  # a child of it may still write
            self._folder.cleanup()

    def resize(self, width, height=1000, *, phone=False):
        """Set the window's size in CSS pixels; a phone has fingers, and its own idea of a page's width."""
        self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        self._send("Emulation.setTouchEmulationEnabled", enabled=phone)

    def theme(self, name):
        """``light`` or ``dark``, as the page's owner prefers."""
        self._send(
            "Emulation.setEmulatedMedia",
            features=[
                {"name": "prefers-color-scheme", "value": name},
                {"name": "prefers-reduced-motion", "value": "reduce"},
            ],
        )

    def open(self, url, before=""):
        """Go to a page and wait until it is loaded.

        Args:
            url: Or the path of a file.
            before: A script to run before any of the page's.
        """
        self.errors.clear()
        self._events.clear()
        script = None
        if before:
            script = self._send("Page.addScriptToEvaluateOnNewDocument", source=before)["identifier"]
        self._send("Page.navigate", url=url if "://" in str(url) else f"file://{url}")
        self.event("Page.loadEventFired")
        if script is not None:
            self._send("Page.removeScriptToEvaluateOnNewDocument", identifier=script)

    def event(self, name):
        """Wait for the next event of that name, or take one that has come already."""
        while True:
            for index, message in enumerate(self._events):
                if message["method"] == name:
                    del self._events[: index + 1]
                    return message["params"]
            self._receive()

    def run(self, script):
        """The value of an expression, a promise's when it is there.

        Raises:
            AssertionError: It throws.
        """
        found = self._send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def html(self):
        """The page as it is now."""
        return self.run("document.documentElement.outerHTML")

    def key(self, name):
        """Press a key, such as ``ArrowRight`` or ``Enter``."""
        codes = {"Enter": 13, "Escape": 27, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36,
                 "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}  # fmt: skip
        text = {"text": "\r"} if name == "Enter" else {}
        pressed = {"key": name, "code": name, "windowsVirtualKeyCode": codes[name]}
        self._send("Input.dispatchKeyEvent", type="keyDown", **pressed, **text)
        self._send("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def drag(self, start, end):
        """Move the mouse with its button down from one point to another, in CSS pixels of the window."""
        for kind, (x, y) in (
            ("mouseMoved", start),
            ("mousePressed", start),
            ("mouseMoved", [(a + b) / 2 for a, b in zip(start, end, strict=True)]),
            ("mouseMoved", end),
            ("mouseReleased", end),
        ):
            self._send(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                button="none" if kind == "mouseMoved" and (x, y) == tuple(start) else "left",
                clickCount=1,
            )

    def click(self, selector):
        """Click the middle of an element, scrolled to first."""
        point = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        self.drag(point, point)

    def frames(self):
        """Let the page draw what is due."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def picture(self, path, *, whole=True):
        """Write a PNG of the window, or of the whole page below it, too."""
        self.frames()
        shot = {}
        if whole:
            size = self._send("Page.getLayoutMetrics")["cssContentSize"]
            shot = {
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1},
            }
        found = self._send("Page.captureScreenshot", format="png", **shot)
        Path(path).write_bytes(base64.b64decode(found["data"]))

    def _send(self, method, **params):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        left = memoryview(json.dumps(message).encode() + b"\0")
        while left:
            left = left[os.write(self._to, left) :]
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _receive(self):
        while b"\0" not in self._rest:
            part = os.read(self._from, 1 << 20)
            if not part:
                raise EOFError("the browser has ended")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self._events.append(message)
            self._note(message["method"], message["params"])
        return message

    def _note(self, method, params):
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        if method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(re.sub(r"\s+", " ", params["entry"]["text"]))
