"""DICE-Talk Emotion shows what acts on the chosen emotion; saved emotions are listed at once; wires have colours."""

import json

import pytest

TYPES = ["DICETALK", "DICETALK_AUDIO", "DICETALK_PORTRAIT", "DICETALK_EMOTION"]
SAVED = "of a test"
FIELDS = """() => {
    const node = app.graph.nodes.find((node) => node.comfyClass === "DiceTalkEmotion");
    return node.widgets.filter((widget) => !widget.hidden).map((widget) => widget.name);
}"""
CHOOSE = """(name) => {
    const node = app.graph.nodes.find((node) => node.comfyClass === "DiceTalkEmotion");
    const widget = node.widgets.find((widget) => widget.name === "emotion");
    widget.value = name;
    widget.callback(name, app.canvas, node);
}"""
COLOURS = """(types) => types.map((type) => [
    app.canvas.default_connection_color_byType[type],
    LGraphCanvas.link_type_colors[type],
    getComputedStyle(document.documentElement).getPropertyValue(`--color-datatype-${type}`).trim(),
])"""


@pytest.fixture
def preset(frontend):
    frontend.load({"nodes": [], "links": [], "groups": [], "version": 0.4})
    frontend.page.evaluate("void app.graph.add(LiteGraph.createNode('DiceTalkEmotion'))")
    return frontend


def test_variation_is_offered_for_saved_emotions_only(preset):
    assert preset.page.evaluate(FIELDS) == ["emotion", "intensity"]
    preset.page.evaluate(CHOOSE, "mine")
    assert preset.page.evaluate(FIELDS)[:4] == ["emotion", "intensity", "variation_strength", "variation_seed"]
    preset.page.evaluate(CHOOSE, "sad")
    assert preset.page.evaluate(FIELDS) == ["emotion", "intensity"]


def test_an_old_graph_keeps_its_values(preset):
    graph = preset.serialized()
    graph["nodes"][0]["widgets_values"] = ["fear", 1.3, 0.4, 7, "fixed"]
    preset.load(graph)
    preset.wait_values("DiceTalkEmotion", emotion="fear", intensity=1.3, variation_strength=0.4, variation_seed=7)
    assert preset.page.evaluate(FIELDS) == ["emotion", "intensity"]
    assert preset.page.evaluate("app.graph.serialize().nodes[0].widgets_values") == ["fear", 1.3, 0.4, 7, "fixed"]


@pytest.mark.parametrize("palette", ["light", "dark"])
def test_each_type_of_wire_has_a_colour_of_its_own(frontend, palette):
    frontend.set("Comfy.ColorPalette", palette)
    try:
        colours = frontend.page.evaluate(COLOURS, TYPES)
    finally:
        frontend.set("Comfy.ColorPalette", "dark")
    assert all(len(set(each)) == 1 and each[0].startswith("#") for each in colours), colours
    assert len({each[0] for each in colours}) == len(TYPES)


def test_an_emotion_that_was_saved_is_in_the_lists_at_once(preset, renderer, server, tiny_checkpoint):
    loader = {"class_type": "DiceTalkLoader", "inputs": {"checkpoint": "tiny", "weight_dtype": "default"}}
    # Another one for each renderer: ComfyUI keeps what the same graph made, and would not save again.
    emotion = {"dicetalk": ["5", 1], "emotion": "happy", "intensity": {"canvas": 0.7, "vue": 0.8}[renderer]}
    save = {"emotion": ["8", 0], "name": SAVED, "overwrite": True}
    listed = f"""() => app.graph.nodes.find((node) => node.comfyClass === "DiceTalkEmotion")
        .widgets[0].options.values.includes({json.dumps(SAVED)})"""
    preset.page.evaluate("void app.graph.add(LiteGraph.createNode('DiceTalkSaveEmotion'))")
    file = server.base / "models" / "dicetalk_emotions" / f"{SAVED}.safetensors"
    assert not preset.page.evaluate(listed)
    try:
        preset.page.evaluate(
            """async (output) => {
                const { api } = await import("/scripts/api.js");
                await api.queuePrompt(0, { output, workflow: app.graph.serialize() });
            }""",
            {
                "5": loader,
                "8": {"class_type": "DiceTalkEmotion", "inputs": emotion},
                "9": {"class_type": "DiceTalkSaveEmotion", "inputs": save},
            },
        )
        preset.page.wait_for_function(listed, timeout=120_000)
    finally:
        file.unlink(missing_ok=True)
        preset.page.evaluate("app.refreshComboInNodes()")
