"""Each node's help fits into the panel in which ComfyUI shows it beside the graph, at the panel's own width."""

import re

import pytest
from project import ROOT

from .test_look import photograph

PAGES = sorted(path.stem for path in (ROOT / "web" / "docs").glob("*.md"))
HELP = ".node-help-content"
MISSING = re.compile(r"404 .*/docs/\w+/en\.md")
SELECT = """(kind) => {
    app.graph.clear();
    const node = LiteGraph.createNode(kind);
    app.graph.add(node);
    app.canvas.selectItems([node]);
}"""
# What reaches out of the help's column: [tag, its first words, by how many pixels].
WIDE = """(selector) => {
    const help = document.querySelector(selector);
    const { left, right } = help.getBoundingClientRect();
    const over = (part) => {
        const box = part.getBoundingClientRect();
        return Math.max(box.right - right, left - box.left, part.scrollWidth - help.clientWidth);
    };
    const parts = [help, ...help.querySelectorAll("*")];
    const found = parts.map((part) => [part.tagName, part.textContent.slice(0, 40), over(part)]);
    return found.filter(([, , pixels]) => pixels > 1);
}"""


@pytest.fixture
def panel(frontend):
    """kind → the help of a node of that type, in the panel as it opens."""

    def show(kind):
        frontend.page.evaluate(SELECT, kind)
        if not frontend.page.locator(HELP).is_visible():
            frontend.set("Comfy.RightSidePanel.IsOpen", True)
            frontend.page.get_by_test_id("panel-tab-info").click()
        title = frontend.page.evaluate("(kind) => LiteGraph.registered_node_types[kind].title", kind)
        frontend.page.locator(HELP).get_by_role("heading", name=title, exact=True).wait_for()
        return frontend.page.locator(HELP)

    yield show
    frontend.set("Comfy.RightSidePanel.IsOpen", False)
    # The page asks for the help in its own language first, and takes the one without a language where there is none.
    frontend.errors[:] = [error for error in frontend.errors if not MISSING.search(error)]


def test_nothing_in_a_help_page_is_wider_than_the_panel(frontend, panel):
    for kind in PAGES:
        help_page = panel(kind)
        assert 200 < help_page.bounding_box()["width"] < 500, "the panel has its own width"
        assert help_page.locator("table").count() == 0
        assert frontend.page.evaluate(WIDE, HELP) == [], kind
    panel("DiceTalkSampler")
    photograph(frontend, "help")


def test_a_wide_table_would_be_noticed(frontend, panel):
    panel("DiceTalkSampler")
    table = "<table><tr>" + 6 * "<td>one_long_word_that_does_not_break</td>" + "</tr></table>"
    frontend.page.evaluate(
        "([help, table]) => document.querySelector(help).insertAdjacentHTML('beforeend', table)", [HELP, table]
    )
    assert any(tag == "TABLE" for tag, *_ in frontend.page.evaluate(WIDE, HELP))
