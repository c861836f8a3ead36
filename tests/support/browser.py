"""A headless chromium, driven over its pipe: pages as a reader has them, wide, narrow and dark.

Messages of the DevTools protocol go both ways as JSON, each ended by a zero byte.
"""

import fcntl
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium")
_FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
    --disable-background-networking --disable-component-update --remote-debugging-pipe
""".split()


class Browser:
    """A browser with one page open; a context, at whose end its processes are gone.

    Args:
        profile: folder for what the browser keeps.
    """

    def __init__(self, profile: Path) -> None:
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        # The browser reads from file 3 and writes to file 4; 10: none of these is in the way.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (read, write)]
        self._process = os.posix_spawn(
            str(CHROMIUM),
            [str(CHROMIUM), *_FLAGS, f"--user-data-dir={profile}"],
            os.environ,
            file_actions=[
                *((os.POSIX_SPAWN_OPEN, file, os.devnull, os.O_RDWR, 0) for file in (0, 1, 2)),
                *((os.POSIX_SPAWN_DUP2, end, 3 + k) for k, end in enumerate(ends)),
            ],
        )
        for end in (read, write, *ends):
            os.close(end)
        self._rest, self._count, self._session = b"", 0, ""
        self.errors: list[str] = []
        """What the pages' scripts threw, dialogs they opened, and addresses they asked for."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._session = ""
            self.call("Browser.close")
        os.close(self._in)  # without which it ends, too
        os.close(self._out)
        os.waitpid(self._process, 0)

    def call(self, method: str, **parameters: Any) -> Any:
        """Ask for something and wait for the answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, page: Path, *, width: int = 1200, dark: bool = False) -> None:
        """Load a page and wait until it is there; errors of earlier ones are forgotten."""
        self.errors.clear()
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.as_uri())
        while (event := self._next()).get("method") != "Page.loadEventFired":
            self._note(event)

    def run(self, script: str) -> Any:
        """Value of an expression of JavaScript in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def _next(self) -> Any:
        while b"\0" not in self._rest:
            part = os.read(self._in, 1 << 20)
            if not part:
                raise RuntimeError("the browser is gone")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: Any) -> None:
        method, content = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(content["exceptionDetails"]["exception"]["description"])
        if method == "Page.javascriptDialogOpening":
            self.errors.append(f"dialog: {content['message']}")
            self._count += 1
        if method == "Network.requestWillBeSent":
            address = content["request"]["url"]
            if not address.startswith(("file:", "data:")):
                self.errors.append(f"request: {address}")
