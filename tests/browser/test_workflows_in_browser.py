"""The workflows that come with the pack, in the page: they load, one is run, and edits are found again."""

import copy
import json

import pytest
from project import ROOT

from .test_look import photograph

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
SMALL = {
    "DiceTalkLoader": ["tiny", "default"],
    "DiceTalkAudioFeatures": [0, 0.4],
}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_it_loads_and_its_nodes_are_drawn_apart(frontend, path):
    workflow = read(path)
    frontend.load(workflow)
    loaded = frontend.page.evaluate(
        """() => {
            const known = LiteGraph.registered_node_types;
            return app.graph.nodes.map((node) => [node.type, node.type in known]);
        }"""
    )
    assert sorted(kind for kind, _ in loaded) == sorted(node["type"] for node in workflow["nodes"])
    assert [kind for kind, good in loaded if not good] == []
    links = frontend.page.evaluate("app.graph.serialize().links.map((link) => link.slice(1, 5).map(String))")
    assert sorted(links) == sorted([str(each) for each in link[1:5]] for link in workflow["links"])

    assert frontend.page.evaluate("app.canvas.ds.scale") >= 0.6, "words in nodes are drawn"
    photograph(frontend, f"workflow {path.stem}")
    frontend.fit()
    overlaps = """() => {
        const { NODE_TITLE_HEIGHT: title } = LiteGraph;
        const boxes = app.graph.nodes.map((node) => [node.title, ...node.pos, ...node.size]);
        const apart = ([, ax, ay, aw, ah], [, bx, by, bw, bh]) =>
            ax + aw <= bx || bx + bw <= ax || ay + ah <= by - title || by + bh <= ay - title;
        return boxes.flatMap((a, at) => boxes.slice(at + 1).filter((b) => !apart(a, b)).map((b) => [a[0], b[0]]));
    }"""
    # Nodes that are too small for what is in them grow when they are drawn.
    sizes = None
    while sizes != (sizes := frontend.page.evaluate("app.graph.nodes.map((node) => [...node.size].join())")):
        frontend.page.evaluate("new Promise((done) => setTimeout(() => requestAnimationFrame(done), 300))")
    assert frontend.page.evaluate(overlaps) == []


def small(workflow):
    """The workflow with the server's small models, a small picture, and one step."""
    workflow = copy.deepcopy(workflow)
    blueprint = next(node for node in workflow["nodes"] if node.get("title", "").startswith("Talking Portrait"))
    names = [name for _, name in blueprint["properties"]["proxyWidgets"]]
    values = dict(zip(names, blueprint["widgets_values"], strict=True)) | {"size": 64, "steps": 1}
    blueprint["widgets_values"] = list(values.values())
    (definition,) = workflow["definitions"]["subgraphs"]
    for node in definition["nodes"]:
        node["widgets_values"] = SMALL.get(node["type"], node.get("widgets_values"))
    return workflow


def test_the_quick_start_is_run_from_the_page(frontend, server):
    frontend.load(small(read(ROOT / "example_workflows" / "1 Quick start.json")))
    frontend.page.evaluate(
        """async () => {
            const { api } = await import("/scripts/api.js");
            window.ended = null;
            for (const kind of ["execution_success", "execution_error", "execution_interrupted"]) {
                api.addEventListener(kind, (event) => (window.ended = [kind, event.detail]), { once: true });
            }
        }"""
    )
    with frontend.page.expect_response("**/api/prompt") as queued:
        frontend.page.get_by_test_id("queue-button").click()
    assert queued.value.ok, queued.value.text()
    frontend.page.wait_for_function("window.ended", timeout=300_000)
    kind, detail = frontend.page.evaluate("window.ended")
    assert kind == "execution_success", detail
    history = server.get(f"/history/{detail['prompt_id']}")[detail["prompt_id"]]
    (saved,) = [number for number, node in history["prompt"][2].items() if node["class_type"] == "SaveVideo"]
    (sampler,) = [node for node in history["prompt"][2].values() if node["class_type"] == "DiceTalkSampler"]
    assert sampler["inputs"]["steps"] == 1, "what is set on the blueprint's node counts"
    photograph(frontend, "quick_start_done")
    assert server.saved_file({"": history["outputs"][saved]}).stat().st_size > 0
    frontend.page.locator("video").first.wait_for(state="attached")  # the saved video is shown in its node


def test_edits_are_found_again_after_a_reload(frontend, renderer):
    text = f"0s happy:0.8; 2s surprised:1.4 smooth; 3s {'sad' if renderer == 'vue' else 'fear'}"
    frontend.build("0s neutral")
    frontend.show("DiceTalkEmotionTimeline", ".dicetalk-timeline")
    frontend.page.locator("textarea:visible").first.fill(text)
    handle = frontend.show("DiceTalkEmotionWheel", ".dicetalk-wheel").get_by_role("slider")
    handle.press("ArrowRight")
    handle.press("ArrowUp")
    values = frontend.values("DiceTalkEmotionWheel")
    # The frontend keeps drafts of what is not saved a moment after each change.
    kept = r"""(texts) => Object.values(localStorage).some((kept) => {
        const plain = kept.replaceAll("\\", "");
        return texts.every((text) => plain.includes(text));
    })"""
    frontend.page.wait_for_function(kept, arg=[text, f'"surprised":{values["surprised"]}'])
    frontend.open()
    frontend.wait_values("DiceTalkEmotionTimeline", timeline=text)
    assert frontend.values("DiceTalkEmotionWheel") == values
    editor = frontend.show("DiceTalkEmotionTimeline", ".dicetalk-timeline")
    assert editor.locator(".dicetalk-blocks span").all_text_contents()[:2] == ["happy", "surprised"]
    frontend.page.wait_for_function("document.querySelectorAll('.dicetalk-key').length === 3")
