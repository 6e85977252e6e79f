"""The loader's Download button in the page. The server's answers are given here; its routes have tests of their own."""

from frontend import NOTHING_MISSING, UNET_MISSING

PANEL = ".dicetalk-download"
MISSING = UNET_MISSING | {"missing": ["DICE-Talk/unet.pth", "emotions/sad.npy"]}
FETCHING = MISSING | {"state": "fetching", "file": "unet.pth", "done": 1_500_000_000, "total": 6_000_000_000}


def height(frontend):
    return frontend.page.evaluate("app.graph.nodes.find((node) => node.comfyClass === 'DiceTalkLoader').size[1]")


def test_a_complete_checkpoint_shows_nothing_more(frontend, answers):
    frontend.build()
    frontend.page.wait_for_function("app.graph.nodes.length === 5")
    assert frontend.values("DiceTalkLoader").keys() == {"checkpoint", "weight_dtype"}
    assert frontend.page.locator(PANEL).count() == 0
    assert all(method == "GET" for method, *_ in answers.asked)


def test_missing_files_a_click_progress_cancel_an_error_and_the_end(frontend, answers):
    answers.state = MISSING
    frontend.build()
    panel = frontend.show("DiceTalkLoader", PANEL)
    said = panel.inner_text()
    assert "/models/dicetalk" in said and "unet.pth" in said and "emotions/ sad.npy" in said
    assert "svd_xt" not in said
    assert answers.posts() == [], "nothing is fetched without a click"

    answers.state = FETCHING
    panel.get_by_role("button", name="Download").dispatch_event("click")
    bar = panel.locator("progress")
    bar.wait_for()
    assert answers.posts() == [("/download", "{}")]
    assert "unet.pth: 1.5 of 6.0 GB" in panel.inner_text()
    answers.state = FETCHING | {"done": 3_000_000_000}
    frontend.page.wait_for_function("document.querySelector('progress')?.value === 3e9")

    answers.state = FETCHING | {"state": "stopping"}
    panel.get_by_role("button", name="Cancel").dispatch_event("click")
    panel.get_by_text("Stopping").wait_for()
    assert answers.posts()[1:] == [("/download/cancel", "{}")]

    answers.state = MISSING | {"error": "owner/name asks you to accept its licence first.", "svd": False}
    alert = panel.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text() == "owner/name asks you to accept its licence first."
    assert "svd_xt.safetensors in /models/x" in panel.inner_text()

    open_height = height(frontend)
    answers.state = NOTHING_MISSING | {"complete": ["DICE-Talk"]}
    panel.get_by_role("button", name="Download again").dispatch_event("click")
    panel.wait_for(state="detached")
    assert height(frontend) < open_height
    saved = frontend.page.evaluate("app.graph.serialize().nodes.find((node) => node.type === 'DiceTalkLoader')")
    assert saved["widgets_values"] == ["DICE-Talk", "default"], "what came is chosen in the place of what is not here"


def test_a_workflow_that_names_a_checkpoint_which_is_not_here_is_offered_those_that_are(frontend, answers):
    answers.state = NOTHING_MISSING | {"complete": ["DICE-Talk", "tiny"]}
    frontend.build()
    loader = "app.graph.nodes.find((node) => node.comfyClass === 'DiceTalkLoader')"
    frontend.page.evaluate(f"{loader}.widgets.find((widget) => widget.name === 'checkpoint').value = 'mine'")
    frontend.load(frontend.serialized())
    panel = frontend.show("DiceTalkLoader", PANEL)
    assert "The checkpoint mine is not here, or not complete." in panel.inner_text()
    assert panel.get_by_role("button").all_inner_texts() == ["Use DICE-Talk", "Use tiny"]
    panel.get_by_role("button", name="Use tiny").dispatch_event("click")
    panel.wait_for(state="detached")
    assert frontend.values("DiceTalkLoader")["checkpoint"] == "tiny" and answers.posts() == []


def test_the_miniature_is_offered_and_the_released_weights_beside_it(frontend, answers):
    answers.state = MISSING | {"complete": ["miniature"], "miniatures": ["miniature"]}
    frontend.build()
    panel = frontend.show("DiceTalkLoader", PANEL)
    assert "The miniature knows drawn people only." in panel.inner_text()
    assert panel.get_by_role("button").all_inner_texts() == ["Use miniature", "Download"]
    panel.get_by_role("button", name="Use miniature").dispatch_event("click")
    panel.get_by_text("is not here").wait_for(state="detached")
    assert frontend.values("DiceTalkLoader")["checkpoint"] == "miniature"
    assert "knows drawn people only" in panel.inner_text()
    assert panel.get_by_role("button").all_inner_texts() == ["Download"]


def test_a_missing_svd_is_named_where_its_parts_are_wired(frontend, answers):
    answers.state = NOTHING_MISSING | {"svd": False, "without_svd": ["tiny"]}
    frontend.build()
    frontend.page.wait_for_function("app.graph.nodes.length === 5")
    frontend.page.locator(PANEL).wait_for(state="detached")  # nothing takes the VAE from here
    workflow = frontend.serialized()
    loader = next(node for node in workflow["nodes"] if node["type"] == "DiceTalkLoader")
    decode = {"id": 900, "type": "VAEDecode", "pos": [0, 600], "size": [200, 60], "flags": {}, "order": 9, "mode": 0}
    decode["inputs"] = [
        {"name": "samples", "type": "LATENT", "link": None},
        {"name": "vae", "type": "VAE", "link": 901},
    ]
    decode["outputs"] = [{"name": "IMAGE", "type": "IMAGE", "links": None}]
    loader["outputs"][3]["links"] = [901]
    workflow["nodes"].append(decode | {"properties": {}, "widgets_values": []})
    workflow["links"].append([901, loader["id"], 3, 900, 1, "VAE"])
    frontend.load(workflow)
    panel = frontend.show("DiceTalkLoader", PANEL)
    assert "svd_xt.safetensors in /models/x" in panel.inner_text()
    assert panel.get_by_role("button").count() == 0, "it cannot be fetched without consent"


def test_runs_that_another_page_began_are_followed_one_after_the_other(frontend, answers):
    frontend.build()
    panel = frontend.page.locator(PANEL)
    for _ in range(2):
        answers.state = FETCHING
        frontend.page.evaluate("void LiteGraph.createNode('DiceTalkLoader')")  # which asks
        panel.get_by_text("unet.pth: 1.5 of 6.0 GB").wait_for(state="attached")
        answers.state = FETCHING | {"done": 3_000_000_000}
        frontend.page.wait_for_function("document.querySelector('progress')?.value === 3e9")
        answers.state = NOTHING_MISSING
        panel.wait_for(state="detached")
