"""The editors are as wide as their nodes, whatever ComfyUI's side panel does with the node that is selected."""

import io
import json

import pytest
from frontend import UNET_MISSING
from PIL import Image
from project import ROOT

PICTURES = ROOT / ".cache" / "pictures"
EDITORS = {
    "DiceTalkEmotionWheel": ".dicetalk-wheel-box",
    "DiceTalkEmotionTimeline": ".dicetalk-timeline",
    "DiceTalkLoader": ".dicetalk-download",
}
NODE = "app.graph.nodes.find((node) => node.comfyClass === kind)"
PANEL = "Comfy.RightSidePanel.IsOpen"
EDGES = 60  # pixels at most that a node has beside its editor
# A frame is drawn when the graph is; what the panel does it does with the frames after the selection.
SETTLED = """() => new Promise((done) => {
    let left = 6;
    const next = () => {
        app.canvas.setDirty(true, true);
        left-- ? setTimeout(() => requestAnimationFrame(next), 60) : done();
    };
    next();
})"""


@pytest.fixture
def graph(frontend):
    """The small graph, where a file is missing, so that each of the pack's editors is there."""
    answer = {"status": 200, "content_type": "application/json", "body": json.dumps(UNET_MISSING)}
    frontend.page.route("**/dicetalk/download**", lambda route: route.fulfill(**answer))
    frontend.build("0s neutral; 1s happy:1.2 smooth")
    yield frontend
    frontend.set(PANEL, False)
    frontend.page.unroute("**/dicetalk/download**")
    frontend.build()


def select(frontend, kind):
    frontend.page.evaluate(f"(kind) => app.canvas.selectNode({NODE})", kind)
    frontend.page.evaluate(SETTLED)


def widths(frontend, kind):
    """Of the node and of its editor on the screen, at scale 1."""
    frontend.page.evaluate(SETTLED)
    node = frontend.page.evaluate(f"(kind) => {NODE}.size[0]", kind)
    return node, frontend.page.locator(EDITORS[kind]).first.bounding_box()["width"]


def panel_is_open(frontend):
    return frontend.page.evaluate("document.querySelector('[data-testid=\"properties-panel\"]') !== null")


def test_a_width_that_the_panel_leaves_in_an_editor_would_be_noticed(graph, renderer):
    """What ComfyUI does to an editor that takes the panel's width, on the renderer that heeds it."""
    kind = "DiceTalkEmotionTimeline"
    graph.show(kind, EDITORS[kind])
    node, before = widths(graph, kind)
    graph.page.evaluate(f"(kind) => delete {NODE}.widgets.find(({{ type }}) => type === 'dicetalk_editor').width", kind)
    graph.set(PANEL, True)
    select(graph, kind)
    graph.page.wait_for_function("document.querySelector('[data-testid=\"properties-panel\"]')")
    _, after = widths(graph, kind)
    assert after < before - 100 if renderer == "canvas" else after == before


@pytest.mark.parametrize("kind", EDITORS)
def test_it_keeps_its_width_when_the_panel_shows_its_node(graph, renderer, kind):
    graph.show(kind, EDITORS[kind])
    node, before = widths(graph, kind)
    assert node - EDGES <= before <= node

    graph.set(PANEL, True)
    select(graph, kind)
    graph.page.wait_for_function("document.querySelector('[data-testid=\"properties-panel\"]')")
    assert widths(graph, kind) == (node, before), "with the panel open"

    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(graph.page.screenshot()))
    picture.save(PICTURES / f"panel_{kind}_{renderer}.png")

    graph.page.evaluate(f"(kind) => {{ const node = {NODE}; node.setSize([node.size[0] + 120, node.size[1]]); }}", kind)
    assert widths(graph, kind) == (node + 120, before + 120), "resized"

    graph.set(PANEL, False)
    graph.page.wait_for_function("!document.querySelector('[data-testid=\"properties-panel\"]')")
    assert widths(graph, kind) == (node + 120, before + 120), "with the panel closed again"

    graph.load(graph.serialized())
    graph.show(kind, EDITORS[kind])
    assert widths(graph, kind) == (node + 120, before + 120), "loaded again"
