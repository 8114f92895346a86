"""A real browser for tests of the dashboard: chromium without a window, by its DevTools protocol.

It runs beside the tests' loop, where the simulated servers live. Waits end when the page holds what is
waited for, and never by time alone.
"""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

CHROMIUM: Final = shutil.which("chromium")
FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0"),
)
LISTENS: Final = re.compile(rb"DevTools listening on (ws://\S+)")
LOOK_SECONDS: Final = 0.05
START_SECONDS: Final = 60.0
LARGEST: Final = 64 << 20


class Page:
    """One tab. `errors` are what it complained of: exceptions, and all that the console calls an error."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._socket = socket
        self._session: dict[str, str] = {}
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def listen(self) -> None:
        """Takes what the browser says, until it ends."""
        async for message in self._socket:
            said = orjson.loads(message.data)
            if "id" in said:
                waiting = self._waiting.pop(said["id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(said)
            elif said["method"] == "Runtime.exceptionThrown":
                self.errors.append(str(said["params"]["exceptionDetails"]))
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.errors.append(said["params"]["entry"]["text"])
            elif said["method"] == "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])

    async def attach(self) -> None:
        """To the tab that a new browser has."""
        targets = (await self.call("Target.getTargets"))["targetInfos"]
        [tab] = [target["targetId"] for target in targets if target["type"] == "page"]
        attached = await self.call("Target.attachToTarget", targetId=tab, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol, and its result."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params, **self._session})
        said = await answer
        assert "error" not in said, f"{method}: {said}"
        return dict(said["result"])

    async def run(self, script: str) -> Any:
        """What an expression of JavaScript comes to, once it is settled."""
        result = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, f"{script}: {result['exceptionDetails']}"
        return result["result"].get("value")

    async def until(self, script: str) -> None:
        """Returns when it comes to something. There is no event for "the page shows it"."""
        while not await self.run(f"!!({script})"):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def press(self, key: str, text: str = "") -> None:
        """A key of the keyboard, as far as this browser knows keys: Tab, Enter, Escape."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27}[key]
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        await self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    async def write(self, text: str) -> None:
        """Text into what has the focus, in place of what is selected there."""
        await self.call("Input.insertText", text=text)

    async def connected(self, on: bool) -> None:
        """Whether the tab has a network."""
        unlimited = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await self.call("Network.emulateNetworkConditions", offline=not on, **unlimited)

    async def size(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """A tab in a browser of its own, whose profile is in `folder`."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={folder}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        # A sanitizer that the cores need, it can't stand.
        env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
    )
    beside: list[asyncio.Task[Any]] = []
    try:
        assert process.stderr is not None
        async with asyncio.timeout(START_SECONDS):
            while (found := LISTENS.search(line := await process.stderr.readline())) is None:
                assert line, "chromium ended before it listened"
        # It writes on, and must not wait for a reader.
        beside.append(asyncio.create_task(process.stderr.read()))
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(found[1].decode(), max_msg_size=LARGEST) as socket,
        ):
            page = Page(socket)
            beside.append(asyncio.create_task(page.listen()))
            await page.attach()
            yield page
    finally:
        process.kill()
        await process.wait()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
