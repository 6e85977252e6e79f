"""The page that the browser tests share: one load of the frontend for all, as that takes seconds.

Its fixtures are the package's: the page, which draws all the time, is closed when these tests end.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from comfy_server import furnished
from frontend import NOTHING_MISSING, RENDERERS, Frontend, chromium
from project import ROOT

from dicetalk.media.video import write_video


def pytest_collection_modifyitems(items):
    """These come first: one process runs them all, for minutes, while the other one goes through the files."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.parent != here)
    for item in items:
        if item.path.parent == here:
            item.add_marker(pytest.mark.timeout(240))  # `evaluate` itself waits for ever for a page that stands still


@pytest.fixture(scope="package")
def browser():
    """A Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    path = chromium()
    if path is None:
        pytest.skip("no Chromium or Chrome found: install one, or set CHROMIUM_PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server(tmp_path_factory, tiny_checkpoint, comfyui):
    """A ComfyUI of their own: the page would show what other tests left on theirs, and read its history."""
    server = furnished(comfyui, ROOT, tmp_path_factory.mktemp("comfyui"), tiny_checkpoint)
    yield server
    server.stop()


@pytest.fixture(scope="package")
def clip(server):
    """The clip that the workflows name, on the server: a tall one, which takes the most room in its node."""
    write_video(server.base / "input" / "dicetalk_reference.mp4", 6 * [np.full((160, 90, 3), 0.5, np.float32)], 12.5)


@pytest.fixture(scope="package")
def opened(browser, server, clip):
    # Settings of a person who has been here before: no tour, no welcome.
    server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingModelsWarning": False})
    page = browser.new_page(viewport={"width": 1360, "height": 920})
    frontend = Frontend(page, server.url)
    frontend.open()
    return frontend


@pytest.fixture(scope="package", params=RENDERERS)
def renderer(opened, request):
    """Once on each of the frontend's renderers; of the package, so that they change once only."""
    opened.use(request.param)
    return request.param


@pytest.fixture
def frontend(opened, renderer):
    """The page, of which a test must leave no error and no request to another host."""
    opened.errors.clear()
    opened.outside.clear()
    yield opened
    assert opened.errors == []
    assert opened.outside == []


class Answers:
    """What the server says next of the Download button, and what it was asked: (method, path, body)."""

    def __init__(self):
        self.state, self.asked = NOTHING_MISSING, []

    def __call__(self, route):
        request = route.request
        self.asked.append((request.method, request.url.partition("/dicetalk")[2], request.post_data))
        route.fulfill(status=200, content_type="application/json", body=json.dumps(self.state))

    def posts(self):
        return [(path, body) for method, path, body in self.asked if method == "POST"]


@pytest.fixture
def answers(frontend):
    """The routes of the Download button answer as the test says."""
    answers = Answers()
    frontend.page.route("**/dicetalk/download**", answers)
    yield answers
    answers.state = NOTHING_MISSING
    frontend.page.unroute("**/dicetalk/download**")
