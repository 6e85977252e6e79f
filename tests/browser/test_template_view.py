"""Words are drawn in a graph of the pack that is opened from ComfyUI's Templates, in windows of two sizes."""

import json

import pytest
from project import ROOT

from .test_look import photograph

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
SIZES = {"small": (1280, 800), "large": (1920, 1080)}
# As the dialog of the templates calls it.
OPEN = """async ([workflow, source]) => {
    await app.loadGraphData(workflow, true, true, "one", source ? { openSource: source } : {});
    const tabs = app.extensionManager.workflow;
    for (const tab of [...tabs.openWorkflows]) {
        if (tab.path !== tabs.activeWorkflow.path) await tabs.closeWorkflow(tab);
    }
    for (let frame = 0; frame < 4; frame++) await new Promise(requestAnimationFrame);
    const { scale, offset } = app.canvas.ds;
    return { scale, offset: [...offset], low: app.canvas.low_quality };
}"""


@pytest.fixture(params=SIZES)
def window(frontend, request):
    """The page in a window of that size; afterwards as it was."""
    width, height = SIZES[request.param]
    before = frontend.page.viewport_size
    resize(frontend, width, height)
    yield request.param
    resize(frontend, **before)


def resize(frontend, width, height):
    frontend.page.set_viewport_size({"width": width, "height": height})
    frontend.page.wait_for_function("width => Math.abs(app.canvas.canvas.clientWidth - width) < 80", arg=width)


def test_words_are_drawn_in_every_template(frontend, window):
    for path in WORKFLOWS:
        view = frontend.page.evaluate(OPEN, [json.loads(path.read_text(encoding="utf-8")), "template"])
        assert view["low"] is False and view["scale"] >= 0.571, f"{path.stem}: {view}"


def test_a_template_is_opened_from_the_dialog(frontend, window, renderer):
    frontend.page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    frontend.page.get_by_role("dialog").get_by_text("comfyui-dice-talk", exact=True).first.click()
    frontend.page.get_by_test_id("template-workflow-4 Emotion from a clip").click()
    frontend.page.wait_for_function("app.graph.nodes.some((node) => node.comfyClass === 'DiceTalkEmotionFromClip')")
    frontend.page.get_by_role("dialog").wait_for(state="hidden")
    frontend.page.wait_for_function("app.canvas.low_quality === false")
    photograph(frontend, f"template {window} {renderer}")
    assert frontend.page.evaluate("app.canvas.ds.scale") >= 0.571


def test_a_view_that_somebody_saved_stays(frontend):
    workflow = json.loads(WORKFLOWS[0].read_text(encoding="utf-8"))
    workflow["extra"]["ds"] = {"scale": 0.3, "offset": [300, 400]}
    view = frontend.page.evaluate(OPEN, [workflow, None])
    assert view["scale"] == 0.3 and view["offset"] == [300, 400]


def test_other_graphs_are_left_to_comfyui(frontend):
    workflow = json.loads(next(path for path in WORKFLOWS if path.stem[:2] == "4 ").read_text(encoding="utf-8"))
    del workflow["extra"]["dicetalk_template"]
    assert frontend.page.evaluate(OPEN, [workflow, "template"])["scale"] < 0.5
