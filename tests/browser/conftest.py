"""A real browser: Chromium of the system, driven by Playwright, under a hard time limit.

Without Chromium or Playwright these tests are skipped, unless VLMLAB_BROWSER names a Chromium: then
something that is missing is an error.
"""

import os
import shutil
import threading
from pathlib import Path

import psutil
import pytest

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()
LIMIT = 300  # seconds for all tests of one module, where it names no `LIMIT` of its own
SCREENSHOTS = Path(__file__).parents[2] / "build/screenshots"


def executable() -> str:
    """The Chromium to use; skips where there is none."""
    if named := os.environ.get("VLMLAB_BROWSER"):
        return named
    pytest.importorskip("playwright")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return found or pytest.skip("no Chromium here; on Debian: apt install chromium")


def started(before: set[psutil.Process]) -> set[psutil.Process]:
    """The processes below this one that were not there before."""
    return set(psutil.Process().children(recursive=True)) - before


def end(before: set[psutil.Process]) -> None:
    for process in started(before):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


@pytest.fixture(scope="module")
def browser(request):
    """A headless Chromium. After LIMIT seconds it and its driver are killed, and the waiting test fails."""
    path = executable()
    from playwright.sync_api import sync_playwright

    before = set(psutil.Process().children(recursive=True))
    watchdog = threading.Timer(getattr(request.module, "LIMIT", LIMIT), end, [before])
    watchdog.daemon = True
    watchdog.start()
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
            yield chromium
            chromium.close()
    finally:
        watchdog.cancel()
        end(before)


class Watched:
    """A page that opens files only; what it reports, and what it wants from elsewhere, is written down."""

    def __init__(self, browser, width: int = 1280, height: int = 900, scheme: str = "light"):
        self.problems: list[str] = []
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.context.route("**/*", self.answer)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.problems.append(m.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))

    def answer(self, route) -> None:
        if route.request.url.startswith(("file:", "data:")):
            route.continue_()
        else:
            self.problems.append(f"outside: {route.request.url}")
            route.abort()


@pytest.fixture
def open_page(browser):
    """open_page(path, width=, scheme=, fragment=) -> a watched page; it must report nothing by the end."""
    opened = []

    def open_one(path: Path, fragment: str = "", **options) -> Watched:
        watched = Watched(browser, **options)
        opened.append(watched)
        watched.page.goto(path.as_uri() + (f"#{fragment}" if fragment else ""))
        return watched

    yield open_one
    for watched in opened:
        watched.context.close()
    assert [watched.problems for watched in opened if watched.problems] == []


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of the pages are kept; git ignores it."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS
