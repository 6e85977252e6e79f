"""The timeline editor: by mouse, by keyboard and by text, it edits the one text of the node."""

import pytest

from dicetalk.emotion.text import parse_text

KIND = "DiceTalkEmotionTimeline"
TEXT = "0s neutral; 1s happy:1.2 smooth; 2.5s sad"


@pytest.fixture
def editor(frontend):
    frontend.build(TEXT)
    editor = frontend.show(KIND, ".dicetalk-timeline")
    # The axis is as long as the speech once that is decoded.
    frontend.page.wait_for_function("document.querySelector('.dicetalk-wave').getAttribute('d').length > 1000")
    return editor


def text(frontend):
    return frontend.values(KIND)["timeline"]


def keys(frontend):
    return parse_text(text(frontend)).keys


def place(editor, time, intensity):
    """Where a time and an intensity are on the screen."""
    area = editor.locator(".dicetalk-area").bounding_box()
    axis = float(editor.locator(".dicetalk-key").first.get_attribute("max"))
    return area["x"] + time / axis * area["width"], area["y"] + area["height"] * (0.88 - intensity / 2 * 0.76)


def test_the_waveform_is_the_speech(editor):
    assert float(editor.locator(".dicetalk-key").first.get_attribute("max")) == pytest.approx(3.51, abs=0.1)
    assert editor.locator(".dicetalk-note").text_content() == ""


def test_mouse(frontend, editor):
    mouse = frontend.page.mouse
    mouse.move(*place(editor, 1, 1.2))
    mouse.down()
    mouse.move(*place(editor, 1.2, 1.4), steps=3)
    mouse.move(*place(editor, 1.5, 1.6), steps=3)
    mouse.up()
    moved = text(frontend)
    assert keys(frontend)[1].time == pytest.approx(1.5, abs=0.02)
    assert keys(frontend)[1].emotion.intensity == pytest.approx(1.6, abs=0.06)
    assert keys(frontend)[1].easing == "smooth"

    mouse.dblclick(*place(editor, 3, 0.5))
    assert [key.emotion.name for key in keys(frontend)] == ["neutral", "happy", "sad", "sad"]
    assert keys(frontend)[3].time == pytest.approx(3, abs=0.02)
    added = text(frontend)

    mouse.click(*place(editor, 2.5, 1))
    frontend.page.keyboard.press("Delete")
    assert [key.emotion.name for key in keys(frontend)] == ["neutral", "happy", "sad"]
    assert keys(frontend)[2].time == pytest.approx(3, abs=0.02)

    for expected in (added, moved, TEXT):
        frontend.page.keyboard.press("Control+z")
        assert text(frontend) == expected
    for expected in (moved, added):
        frontend.page.keyboard.press("Control+Shift+z")
        assert text(frontend) == expected
    editor.get_by_role("button", name="Undo").click()
    assert text(frontend) == moved


def test_a_key_stays_between_its_neighbours(frontend, editor):
    mouse = frontend.page.mouse
    mouse.move(*place(editor, 1, 1.2))
    mouse.down()
    mouse.move(*place(editor, 3.4, 1.2), steps=3)
    mouse.up()
    assert [key.emotion.name for key in keys(frontend)] == ["neutral", "happy", "sad"]
    assert keys(frontend)[1].time == 2.49


def test_a_drag_is_one_step_of_the_frontends_undo_too(frontend, editor):
    mouse = frontend.page.mouse
    mouse.move(*place(editor, 2.5, 1))
    mouse.down()
    mouse.move(*place(editor, 3, 1), steps=5)
    mouse.up()
    moved = text(frontend)
    assert moved != TEXT
    frontend.focus_canvas()
    frontend.page.keyboard.press("Control+z")
    frontend.wait_values(KIND, timeline=TEXT)
    # What the frontend put back has no steps of the editor's own, so the editor leaves redo to the frontend.
    handle = frontend.show(KIND, ".dicetalk-timeline").locator(".dicetalk-key").nth(1)
    handle.focus()
    handle.press("Control+Shift+z")
    frontend.wait_values(KIND, timeline=moved)


def test_text(frontend, editor):
    box = frontend.page.locator("textarea:visible").first
    box.fill("0s fear; 2s (sad 0.7 + fear 0.3):0.5 step")
    assert editor.locator(".dicetalk-key").count() == 2
    assert editor.locator(".dicetalk-blocks span").all_text_contents() == ["fear", "sad + fear"]
    editor.locator(".dicetalk-key").nth(1).focus()
    assert editor.get_by_label("Intensity").input_value() == "0.5"
    assert editor.get_by_label("Easing").input_value() == "step"

    box.fill("0s fear; 2s happy:3")
    assert editor.locator(".dicetalk-status mark").text_content() == "3"
    assert "at character 19" in editor.locator(".dicetalk-status").text_content()
    assert editor.get_by_role("button", name="Add").is_disabled()
    assert frontend.values(KIND)["timeline"] == "0s fear; 2s happy:3"

    box.fill("happy:1.5")
    assert editor.locator(".dicetalk-status").text_content() == ""
    assert editor.locator(".dicetalk-key").count() == 1
    editor.get_by_role("button", name="Add").click()
    assert text(frontend) == "0s happy:1.5; 1s happy:1.5"
    assert box.input_value() == "0s happy:1.5; 1s happy:1.5"


def test_keyboard(frontend, editor):
    page = frontend.page
    handle = editor.locator(".dicetalk-key").nth(1)
    handle.focus()
    handle.press("ArrowRight")
    handle.press("Shift+ArrowRight")
    handle.press("ArrowDown")
    assert text(frontend) == "0s neutral; 1.11s happy:1.1 smooth; 2.5s sad"
    handle.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    page.keyboard.press("s")  # a shortcut of the frontend elsewhere; here it chooses what starts with s
    assert keys(frontend)[1].emotion.name == "sad"
    handle.focus()
    page.keyboard.press("Tab")
    assert editor.locator(".dicetalk-key").nth(2).evaluate("each => each === document.activeElement")
    page.keyboard.press("Delete")
    assert len(keys(frontend)) == 2
    page.keyboard.press("Delete")
    page.keyboard.press("Delete")  # the last one stays
    assert text(frontend) == "0s neutral"
    assert page.evaluate("app.graph.nodes.length") == 5, "Delete took a node away"


def test_a_neutral_key_has_no_intensity(frontend, editor):
    handle = editor.locator(".dicetalk-key").first
    handle.focus()
    for press in ("ArrowUp", "Shift+ArrowDown"):
        handle.press(press)
        assert text(frontend) == TEXT
    handle.press("ArrowRight")
    assert text(frontend) == TEXT.replace("0s neutral", "0.1s neutral")


@pytest.mark.parametrize("written", ["0s happy; 0.004s sad; 0.01s fear", "1s happy; 1.002s sad; 1.004s fear"])
def test_a_key_without_room_stays_where_it_is(frontend, editor, written):
    frontend.page.locator("textarea:visible").first.fill(written)
    handle = editor.locator(".dicetalk-key").nth(1)
    handle.focus()
    for press in ("ArrowLeft", "ArrowRight", "Shift+ArrowLeft"):
        handle.press(press)
    assert text(frontend) == written and editor.locator(".dicetalk-status").text_content() == ""
    handle.press("ArrowDown")
    assert keys(frontend)[1].emotion.intensity == 0.9 and len(keys(frontend)) == 3


def test_fields(frontend, editor):
    editor.locator(".dicetalk-key").nth(2).focus()
    time, intensity = (editor.get_by_role("spinbutton", name=name) for name in ("Time", "Intensity"))
    time.fill("3")
    time.press("Enter")
    intensity.fill("0.4")
    intensity.press("Enter")
    editor.locator("select").first.select_option("angry")
    editor.get_by_label("Easing").select_option("step")
    assert text(frontend) == "0s neutral; 1s happy:1.2 smooth; 3s angry:0.4 step"
    time.fill("1")
    time.press("Enter")
    assert "already" in editor.locator(".dicetalk-status").text_content()
    assert keys(frontend)[2].time == 3
    time.fill("172801")
    time.press("Enter")
    assert "172800 s at most" in editor.locator(".dicetalk-status").text_content()
    assert keys(frontend)[2].time == 3
    time.fill("172800")
    time.press("Enter")
    editor.get_by_role("button", name="Add").click()
    assert [key.time for key in keys(frontend)] == [0, 1, 172_800]


def test_the_nodes_easing_counts_for_all(frontend, editor):
    frontend.page.evaluate(
        """() => {
            const node = app.graph.nodes.find((node) => node.comfyClass === "DiceTalkEmotionTimeline");
            const widget = node.widgets.find((widget) => widget.name === "easing");
            widget.value = "step";
            widget.callback("step", app.canvas, node);
        }"""
    )
    editor.locator(".dicetalk-key").nth(1).focus()
    assert editor.get_by_label("Easing").is_disabled() and editor.get_by_label("Easing").input_value() == "step"
    assert "step" in editor.locator(".dicetalk-status").text_content()


def test_what_is_queued_is_the_text(frontend, editor):
    assert frontend.queued(KIND).keys() == {"dicetalk", "timeline", "easing"}
    assert frontend.queued(KIND)["timeline"] == TEXT


def test_assistive_technology_hears_what_a_key_is(editor):
    handle = editor.get_by_role("slider").nth(1)
    assert handle.get_attribute("aria-label") == "Emotion 2 of 3"
    assert handle.get_attribute("aria-valuetext") == "happy:1.2 at 1 s, reached smooth"
