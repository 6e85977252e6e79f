"""The editors can be read in light and dark, and they and a graph are photographed.

The pictures are in .cache/pictures to be looked at; with DICETALK_PICTURES set, they become those of docs/images.
"""

import io
import json
import os

import pytest
from PIL import Image
from project import ROOT

PICTURES = ROOT / "docs" / "images" if os.environ.get("DICETALK_PICTURES") else ROOT / ".cache" / "pictures"
WORKFLOWS = ROOT / "example_workflows"
MIN_FONT, CANVAS_INFO = "LiteGraph.Canvas.MinFontSizeForLOD", "Comfy.Graph.CanvasInfo"
TEXT = "0s neutral; 0.8s happy:1.2 smooth; 1.9s (sad 0.7 + fear 0.3):1.3 step; 2.7s surprised:1.5"
PARTS = {
    "DiceTalkEmotionWheel": [".dicetalk-wheel", ".dicetalk-used", ".dicetalk-caption", ".dicetalk-label"],
    "DiceTalkEmotionTimeline": [
        ".dicetalk-timeline",
        ".dicetalk-bar button:enabled",
        ".dicetalk-blocks span",
        ".dicetalk-fields input:enabled",
        ".dicetalk-hint",
        ".dicetalk-ticks span",
    ],
}
CONTRAST = """(selector) => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const over = (below, colour) => {
        canvas.fillStyle = `rgb(${below.join(" ")})`;
        canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = (colour) => {
        const linear = (value) => (value <= 0.04 ? value / 12.9 : ((value + 0.055) / 1.055) ** 2.4);
        const [r, g, b] = colour.map((value) => linear(value / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    return [...document.querySelectorAll(selector)].map((each) => {
        const parents = [];
        for (let part = each; part; part = part.parentElement) parents.unshift(part);
        const paint = (below, part) => over(below, getComputedStyle(part).backgroundColor);
        const paper = parents.reduce(paint, [128, 128, 128]);
        const style = getComputedStyle(each);
        const ink = over(paper, each instanceof SVGElement ? style.fill : style.color);
        const [a, b] = [light(paper), light(ink)];
        return Math.max(a, b) / Math.min(a, b);
    });
}"""


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_words_stand_out_from_what_is_behind_them(frontend, theme):
    frontend.set("Comfy.ColorPalette", theme)
    try:
        frontend.build(TEXT)
        for kind, (editor, *words) in PARTS.items():
            frontend.show(kind, editor)
            for selector in words:
                contrasts = frontend.page.evaluate(CONTRAST, selector)
                assert contrasts and min(contrasts) >= 4.5, f"{selector}: {contrasts}"
    finally:
        frontend.set("Comfy.ColorPalette", "dark")


def photograph(frontend, name, kind=None, margin=24):
    """Write NAME.png: the page, or the node of that type with a margin around it. It must not be blank."""
    frontend.page.mouse.move(700, 900)
    clip = kind and frontend.page.evaluate(
        """([kind, margin]) => {
            const node = app.graph.nodes.find((node) => node.comfyClass === kind);
            const box = app.canvas.canvas.getBoundingClientRect();
            const title = LiteGraph.NODE_TITLE_HEIGHT;
            const [x, y] = app.canvas.convertOffsetToCanvas([node.pos[0], node.pos[1] - title]);
            const [width, height] = [node.size[0] + 2 * margin, node.size[1] + title + 2 * margin];
            return { x: box.x + x - margin, y: box.y + y - margin, width, height };
        }""",
        [kind, margin],
    )
    frontend.page.evaluate("new Promise((done) => setTimeout(done, 700))")  # fonts, hover and focus have settled
    picture = Image.open(io.BytesIO(frontend.page.screenshot(clip=clip))).convert("RGB")
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture.save(PICTURES / f"{name}.png", optimize=True)
    assert not blank(picture), f"{name}.png shows nothing"


def blank(picture):
    """Whether a picture has next to nothing but one colour."""
    colours = picture.getcolors(picture.width * picture.height)
    return len(colours) < 64 or max(colours)[0] > 0.95 * picture.width * picture.height


def graph_picture(frontend, server):
    """The workflow of the timeline as it looks where its models are; here they have but the names."""
    models, page = server.base / "models", frontend.page
    svd, checkpoint = models / "checkpoints" / "svd_xt.safetensors", models / "dicetalk" / "DICE-Talk"
    refresh = "app.extensionManager.command.execute('Comfy.RefreshNodeDefinitions')"
    words_from, info = (frontend.setting(name) for name in (MIN_FONT, CANVAS_INFO))
    svd.parent.mkdir(exist_ok=True)
    svd.touch()
    checkpoint.symlink_to("tiny", target_is_directory=True)
    try:
        page.evaluate(refresh)
        frontend.set(MIN_FONT, 0)  # words, however small
        frontend.set(CANVAS_INFO, False)
        page.set_viewport_size({"width": 2200, "height": 900})
        frontend.load(json.loads((WORKFLOWS / "3 Emotion timeline.json").read_text(encoding="utf-8")))
        frontend.fit()
        page.wait_for_function("document.querySelector('.dicetalk-wave').getAttribute('d').length > 1000")
        photograph(frontend, "graph")
    finally:
        svd.unlink()
        checkpoint.unlink()
        frontend.set(MIN_FONT, words_from)
        frontend.set(CANVAS_INFO, info)
        page.evaluate(refresh)


def test_pictures(frontend, renderer, server):
    page, wheel, timeline = frontend.page, "DiceTalkEmotionWheel", "DiceTalkEmotionTimeline"
    frontend.set("Comfy.Minimap.Visible", False)
    try:
        frontend.build(TEXT)
        frontend.set("Comfy.ColorPalette", "light" if renderer == "vue" else "dark")
        handle = frontend.show(wheel, PARTS[wheel][0]).get_by_role("slider")
        for key in ["ArrowRight"] * 3 + ["ArrowUp"] * 6:
            handle.press(key)
        photograph(frontend, f"wheel_{renderer}", wheel)
        editor = frontend.show(timeline, PARTS[timeline][0])
        page.wait_for_function("document.querySelector('.dicetalk-wave').getAttribute('d').length > 1000")
        editor.locator(".dicetalk-key").nth(1).focus()
        photograph(frontend, f"timeline_{renderer}", timeline)
        if renderer == "canvas":
            graph_picture(frontend, server)
    finally:
        page.set_viewport_size({"width": 1360, "height": 920})
        frontend.set("Comfy.Minimap.Visible", True)
        frontend.set("Comfy.ColorPalette", "dark")


def test_a_blank_picture_is_noticed():
    assert blank(Image.new("RGB", (400, 300), "grey"))
    assert not blank(Image.linear_gradient("L").convert("RGB"))
