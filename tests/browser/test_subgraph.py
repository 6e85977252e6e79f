"""The editors of nodes in a subgraph: they work there, and go with the workflow that makes room for another."""

import json

import pytest
from frontend import UNET_MISSING

KIND = "DiceTalkEmotionTimeline"
TEXT = "0s neutral; 1s happy:1.2 smooth; 2.5s sad"
EDITORS = ".dicetalk-timeline", ".dicetalk-wheel-box", ".dicetalk-download"

WRAP = """() => {
    app.graph.convertToSubgraph(new Set(app.graph.nodes));
    return JSON.parse(JSON.stringify(app.graph.serialize()));
}"""
ENTER = """() => {
    const node = app.graph.nodes[0];
    app.canvas.openSubgraph(node.subgraph, node);
}"""
# Which timeline nodes look for their speech after a change, as each editor does.
AWAKE = """() => {
    const [seen, find] = [new Set(), LiteGraph.LGraphNode.prototype.getOutputNodes];
    LiteGraph.LGraphNode.prototype.getOutputNodes = function (...values) {
        if (this.comfyClass === "DiceTalkEmotionTimeline") seen.add(this);
        return find.apply(this, values);
    };
    app.api.dispatchCustomEvent("graphChanged", {});
    LiteGraph.LGraphNode.prototype.getOutputNodes = find;
    return seen.size;
}"""
VALUE = """() => {
    const nodes = [...app.graph.subgraphs.values()].flatMap((graph) => graph.nodes);
    const node = nodes.find((node) => node.comfyClass === "DiceTalkEmotionTimeline");
    return node.widgets.find((widget) => widget.name === "timeline").value;
}"""


@pytest.fixture
def wrapped(frontend):
    """A workflow of one node, a subgraph with all the others; the page shows its inside, where a file is missing."""
    answer = {"status": 200, "content_type": "application/json", "body": json.dumps(UNET_MISSING)}
    frontend.page.route("**/dicetalk/download**", lambda route: route.fulfill(**answer))
    frontend.build(TEXT)
    workflow = frontend.page.evaluate(WRAP)
    assert len(workflow["nodes"]) == 1
    yield workflow
    frontend.page.unroute("**/dicetalk/download**")
    frontend.build()


def enter(frontend):
    frontend.page.evaluate(ENTER)
    frontend.show(KIND, ".dicetalk-timeline", 0.6)


def test_editors_work_in_a_subgraph(frontend, wrapped):
    frontend.load(wrapped)
    enter(frontend)
    page = frontend.page
    page.wait_for_function("document.querySelector('.dicetalk-wave').getAttribute('d').length > 1000")
    assert page.locator(".dicetalk-note").text_content() == ""
    handle = page.locator(".dicetalk-key").nth(1)
    handle.focus()
    handle.press("ArrowRight")
    assert page.evaluate(VALUE) == TEXT.replace("1s", "1.1s")
    handle.press("Control+z")
    assert page.evaluate(VALUE) == TEXT
    wheel = page.locator(".dicetalk-handle")
    wheel.focus()
    wheel.press("ArrowUp")
    assert wheel.get_attribute("aria-valuenow") == "1.05"
    frontend.fit()  # a node's editor is in the page only while the node is in view
    page.get_by_text("Missing in").wait_for(state="attached")


def test_editors_go_with_their_workflow(frontend, wrapped):
    for _ in range(3):
        frontend.load(wrapped)
    assert frontend.page.evaluate(AWAKE) == 1
    enter(frontend)
    frontend.page.locator(".dicetalk-key").nth(1).press("ArrowRight")
    for command in ("Comfy.Undo", "Comfy.Redo", "Comfy.Undo"):  # each of which loads the workflow anew
        frontend.page.evaluate("(command) => app.extensionManager.command.execute(command)", command)
    assert frontend.page.evaluate(VALUE) == TEXT
    assert frontend.page.evaluate(AWAKE) == 1
    frontend.fit()  # a node's editor is in the page only while the node is in view
    for editor in EDITORS:
        frontend.page.locator(editor).first.wait_for(state="attached")
    assert {editor: frontend.page.locator(editor).count() for editor in EDITORS} == dict.fromkeys(EDITORS, 1)
