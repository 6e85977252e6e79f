"""Examples on a ComfyUI without weights: they open with the miniature, on a drawing, and are ready to run."""

import json

import pytest
from frontend import NOTHING_MISSING, UNET_MISSING
from project import ROOT

MINIATURE_ALONE = UNET_MISSING | {"complete": ["miniature"], "miniatures": ["miniature"]}
WITH_WEIGHTS = NOTHING_MISSING | {"complete": ["DICE-Talk", "miniature"], "miniatures": ["miniature"]}
DRAWN = {"dicetalk_drawn_portrait.png", "dicetalk_drawn_speech.flac", "dicetalk_two.jpg", "dicetalk_reference.mp4"}
TOAST = "takes the place of the weights"


def workflow(name):
    return json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))


def queued(frontend):
    """What would be queued: (checkpoints, sizes, files)."""
    prompt = frontend.page.evaluate("async () => (await app.graphToPrompt()).output").values()

    def found(kind, *names):
        return {value for node in prompt for name in names if isinstance(value := node["inputs"].get(name), kind)}

    return found(str, "checkpoint"), found(int, "short_side"), found(str, "image", "audio", "file")


@pytest.mark.parametrize("name", ["1 Quick start", "3 Emotion timeline", "11 Re-act", "12 Dialogue"])
def test_with_the_miniature_alone_an_example_opens_with_it(frontend, answers, name):
    answers.state = MINIATURE_ALONE
    frontend.load(workflow(name))
    frontend.page.get_by_text(TOAST).first.wait_for()
    checkpoints, sizes, files = queued(frontend)
    assert checkpoints == {"miniature"} and sizes == {64}
    assert files and files <= DRAWN
    frontend.page.get_by_role("button", name="Close").first.click()
    frontend.page.get_by_text(TOAST).first.wait_for(state="detached")


def test_with_the_weights_it_opens_as_it_is(frontend, answers):
    answers.state = WITH_WEIGHTS
    frontend.load(workflow("1 Quick start"))
    assert queued(frontend) == ({"DICE-Talk"}, {512}, {"dicetalk_portrait.jpg", "dicetalk_speech.flac"})
    assert frontend.page.get_by_text(TOAST).count() == 0


def test_a_file_of_ones_own_keeps_the_graph_as_it_is(frontend, answers):
    answers.state = MINIATURE_ALONE
    own = workflow("1 Quick start")
    next(node for node in own["nodes"] if node["type"] == "LoadAudio")["widgets_values"][0] = "speech.flac"
    frontend.load(own)
    assert queued(frontend) == ({"DICE-Talk"}, {512}, {"dicetalk_portrait.jpg", "speech.flac"})
    assert frontend.page.get_by_text(TOAST).count() == 0
