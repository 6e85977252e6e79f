"""Who types what they want into ComfyUI's node search finds the nodes."""

import pytest

EMPTY = {"nodes": [], "links": [], "groups": [], "version": 0.4}


@pytest.mark.parametrize(
    "words, node",
    [
        ("talking", "DICE-Talk Sampler"),
        ("lip sync", "DICE-Talk Sampler"),
        ("avatar", "Load DICE-Talk"),
        ("face animation", "DICE-Talk Sampler"),
        ("audio driven", "DICE-Talk Sampler"),
        ("portrait animation", "DICE-Talk Portrait"),
        ("emotion", "DICE-Talk Emotion Wheel"),
    ],
)
def test_the_node_search_finds_it(frontend, words, node):
    frontend.load(EMPTY)
    page, found = frontend.page, frontend.page.get_by_text(node, exact=True).first
    assert not found.is_visible()
    page.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    page.get_by_role("combobox").last.fill(words)
    found.wait_for(timeout=30_000)
    page.keyboard.press("Escape")
    found.wait_for(state="hidden")
