"""The page for operators: how it is served, and, in a real browser, what it shows and does."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from octoroute.server.dashboard import FILES, FOLDER
from tests.end_to_end.browser import CHROMIUM, Page, browser
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import endpoint, fleet_config
from tests.end_to_end.keys import ADMIN, converse_as, get_as, keyed_config
from tests.end_to_end.processes import reload
from tests.end_to_end.wire_client import converse, fetch

BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="Debian's package chromium is not installed")
TEXT = "document.body.innerText"


def row(table: str, *texts: str) -> str:
    """Finds a row of a table that has all the texts in it."""
    has = " && ".join(f"row.innerText.includes({text!r})" for text in texts)
    return f"[...document.querySelectorAll('#{table} tbody tr')].find(row => {has})"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    async with browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="session")
async def page(tab: Page) -> AsyncIterator[Page]:
    """The tab, as new; left so that it asks a gateway that ends no more."""
    await tab.size(1280, 900)
    tab.errors.clear()
    tab.requests.clear()
    yield tab
    await tab.open("about:blank")


# How it is served


async def test_its_files_come_with_headers_that_let_nothing_else_in(
    serve: StartServer, gateway: StartGateway
) -> None:
    one = await gateway(keyed_config([await serve()]))
    for path, (content_type, body) in FILES.items():
        # No key: the files are the same for everybody.
        reply = await fetch(one.port, path)
        assert (reply.status, reply.body, reply.headers["content-type"]) == (200, body, content_type)
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "unsafe" not in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
    for path in ("/dashboard/", "/dashboard/index.html", "/dashboard/../config.toml", "/dashboard/x.js"):
        assert (await get_as(one.port, ADMIN, path)).status == 404


async def test_it_goes_and_comes_with_the_config(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve()
    one = await gateway(fleet_config([server], observability={"dashboard": False}))
    reply = await fetch(one.port, "/dashboard")
    assert (reply.status, reply.error["code"]) == (404, "unknown_route")
    assert "observability.dashboard is false" in reply.error["message"]
    assert (await reload(one, fleet_config([server]))).status == 200
    assert (await fetch(one.port, "/dashboard")).status == 200


def test_it_asks_for_nothing_from_elsewhere_and_has_no_markup_in_scripts() -> None:
    for file in FOLDER.iterdir():
        text = file.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}, file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), (
            file.name
        )
        assert not re.search(r"\sstyle=|\son\w+=\"|<style", text), file.name


# What it shows


@BROWSER
async def test_it_shows_the_fleet_and_its_requests_and_complains_of_nothing(
    page: Page, serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", "org/qwen<b>8b")
    config = fleet_config([endpoint(server, max_in_flight=7, weight=2.0)], server={"workers": 2})
    one = await gateway(config)
    await asyncio.gather(*(converse(one.port, model="auto") for _ in range(6)))
    await page.open(f"{one.url}/dashboard")
    await page.until(row("endpoints", "fast", "org/qwen<b>8b", "up", "0 / 7"))
    await page.until(row("endpoints", "deep", "nobody-deep"))
    await page.until(row("recent", "200", "fast", "org/qwen<b>8b", "rule:casual_chat"))
    await page.until("document.querySelectorAll('#recent tbody tr').length === 6")
    assert await page.run(f"{TEXT}.includes('live') && document.querySelector('#notice').textContent === ''")
    # With something to compare with, there are rates.
    await page.until("/\\d/.test(document.querySelector('#tiers tbody td:nth-of-type(9)').textContent)")
    await converse(one.port, model="nobody")
    await page.until(row("recent", "400", "nobody"))
    await page.run("document.querySelector('[name=outcome]').value = 'client_error'")
    await page.run("document.querySelector('#filter').dispatchEvent(new Event('change', {bubbles: true}))")
    await page.until("document.querySelectorAll('#recent tbody tr').length === 1")
    asked = {url.partition("?")[0].removeprefix(one.url) for url in page.requests}
    assert asked - {"data:,"} == {*FILES, "/admin/status", "/admin/recent"}
    assert page.errors == []


@BROWSER
async def test_an_endpoint_is_drained_put_back_and_weighed_by_keyboard(
    page: Page, serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", "a/b c")
    one = await gateway(fleet_config([server, server]))
    await page.open(f"{one.url}/dashboard")
    await page.until(row("endpoints", "a/b c", "#2"))
    second = row("endpoints", "a/b c", "#2")
    await page.run(f"{second}.querySelector('button:last-of-type').focus()")
    await page.press("Enter", "\r")
    await page.until("document.querySelector('dialog').open")
    assert await page.run("document.querySelector('dialog').innerText.includes('Drain fast/a/b c #2?')")
    await page.press("Escape")
    await page.until("!document.querySelector('dialog').open")
    assert not await page.run(f"{second}.innerText.includes('draining')")
    # The row has been shown anew meanwhile, perhaps, and has the focus still.
    await page.press("Enter", "\r")
    await page.until("document.activeElement.id === 'dialog-cancel'")
    await page.press("Tab")
    await page.press("Enter", "\r")
    await page.until(row("endpoints", "a/b c", "#2", "draining"))
    assert await page.run(f"!{row('endpoints', 'a/b c', '#1')}.innerText.includes('draining')")
    await page.run(f"{second}.querySelector('button:last-of-type').click()")
    await page.run("document.querySelector('#dialog-do').click()")
    await page.until(row("endpoints", "a/b c", "#2", "up"))
    await page.run(f"{second}.querySelector('button').click()")
    await page.write("0")
    await page.press("Enter", "\r")
    await page.until("document.querySelector('#dialog-error').textContent.includes('weight must be')")
    await page.run("document.querySelector('#weight').select()")
    await page.write("2.5")
    await page.press("Enter", "\r")
    await page.until(row("endpoints", "a/b c", "#2", "2.5*"))


@BROWSER
async def test_it_asks_for_an_admins_key_and_keeps_it_in_the_tab(
    page: Page, serve: StartServer, gateway: StartGateway
) -> None:
    one = await gateway(keyed_config([await serve()], {"name": "team-a", "requests_per_minute": 700}))
    assert (await converse_as(one.port, "sk-team-a")).status == 200
    await page.open(f"{one.url}/dashboard")
    await page.until("document.activeElement.id === 'key-text'")
    assert not await page.run("document.querySelector('#main').checkVisibility()")
    for key, says in (("sk-wrong", "not known"), ("sk-team-a", "not that of an admin")):
        await page.run("document.querySelector('#key-text').select()")
        await page.write(key)
        await page.press("Enter", "\r")
        await page.until(f"document.querySelector('#notice').textContent.includes({says!r})")
    await page.run("document.querySelector('#key-text').select()")
    await page.write(ADMIN)
    await page.press("Enter", "\r")
    await page.until(row("recent", "team-a"))
    await page.until(row("tenants", "team-a", "1 / 700", "fast, balanced, deep"))
    assert await page.run("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    assert not await page.run(f"document.documentElement.outerHTML.includes({ADMIN!r})")
    await page.open(f"{one.url}/dashboard")
    await page.until(row("recent", "team-a"))
    await page.run("document.querySelector('#forget').click()")
    await page.until("document.querySelector('#key').checkVisibility()")
    assert await page.run("sessionStorage.length") == 0
    assert not await page.run("document.querySelector('#main').checkVisibility()")
    assert all("401" in error or "403" in error for error in page.errors)


@BROWSER
async def test_it_says_when_the_gateway_does_not_answer_and_goes_on_when_it_does(
    page: Page, serve: StartServer, gateway: StartGateway
) -> None:
    one = await gateway(fleet_config([await serve("vllm", "steady")]))
    await page.open(f"{one.url}/dashboard")
    await page.until(row("endpoints", "steady"))
    await page.connected(False)
    await page.until("document.querySelector('#notice').textContent.includes(\"it can't be reached\")")
    # What was known is still there, and marked as old.
    assert await page.run(f"!!{row('endpoints', 'steady')} && document.body.classList.contains('stale')")
    await page.connected(True)
    await page.until("document.querySelector('#notice').textContent === ''")
    assert not await page.run("document.body.classList.contains('stale')")


@BROWSER
async def test_a_hidden_tab_asks_nothing(page: Page, serve: StartServer, gateway: StartGateway) -> None:
    one = await gateway(fleet_config([await serve("vllm", "steady")]))
    await page.open(f"{one.url}/dashboard")
    await page.until(row("endpoints", "steady"))
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    told = "document.dispatchEvent(new Event('visibilitychange'))"
    await page.run(hide % "true" + told)
    # A look that is under way just then comes to its end.
    await page.run("new Promise(done => setTimeout(done, 500))")
    page.requests.clear()
    # Longer than between two looks; there is nothing to wait for.
    await page.run("new Promise(done => setTimeout(done, 2500))")
    assert page.requests == []
    await page.run(hide % "false" + told)
    await page.until("document.querySelector('#freshness').textContent === 'live'")
    assert page.requests != []


@BROWSER
async def test_nothing_is_wider_than_the_screen(
    page: Page, serve: StartServer, gateway: StartGateway
) -> None:
    name = f"org/{'long-' * 12}name"
    server = await serve("vllm", "short")
    fast = [endpoint(server, name=name, model="short", max_in_flight=999_999, priority=at) for at in (1, 200)]
    one = await gateway(keyed_config(fast, {"name": f"team-{'long-' * 12}"}))
    reply = await converse_as(one.port, f"sk-team-{'long-' * 12}", model="auto")
    assert reply.status == 200
    assert (await converse_as(one.port, ADMIN, model="m" * 200)).status == 400
    await page.open(f"{one.url}/dashboard")
    await page.until("document.activeElement.id === 'key-text'")
    await page.write(ADMIN)
    await page.press("Enter", "\r")
    await page.until(row("recent", "rule:casual_chat"))
    for width in (360, 600, 900, 1000, 1100, 1280, 1500):
        await page.size(width, 800)
        # The screen of a phone grows with what does not fit on it.
        assert await page.run("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    await page.run("sessionStorage.clear()")
