"""The emotion wheel: dragging sets the numbers, and the numbers move the dot."""

import math

import pytest

KIND = "DiceTalkEmotionWheel"
MOODS = ["happy", "surprised", "fear", "sad", "angry", "disgusted", "contempt"]


@pytest.fixture
def wheel(frontend):
    frontend.build()
    return frontend.show(KIND, ".dicetalk-wheel")


def disc(wheel):
    """The disc's centre and radius on the screen."""
    box = wheel.locator(".dicetalk-rim").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["width"] / 2


def drag(page, wheel, mood, intensity):
    """Drag the dot to a place on the rim (1.5 is between the second and the third) at an intensity."""
    x, y, radius = disc(wheel)
    turn = mood * 2 * math.pi / 7
    dot = wheel.locator(".dicetalk-dot").bounding_box()
    page.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
    page.mouse.down()
    page.mouse.move(x + radius * intensity / 2 * math.sin(turn), y - radius * intensity / 2 * math.cos(turn), steps=4)
    page.mouse.up()


def used(values):
    return {name: value for name, value in values.items() if value and name != "intensity"}


def test_dragging_mixes_two_neighbours_and_distance_is_intensity(frontend, wheel):
    drag(frontend.page, wheel, 1.5, 1.6)  # half way between surprised and fear
    values = frontend.values(KIND)
    assert used(values).keys() == {"surprised", "fear"}
    assert values["surprised"] == pytest.approx(0.5, abs=0.05) and values["intensity"] == pytest.approx(1.6, abs=0.05)
    drag(frontend.page, wheel, 3, 1)  # snaps to sad alone, at exactly 1
    assert used(frontend.values(KIND)) == {"sad": 1} and frontend.values(KIND)["intensity"] == 1
    drag(frontend.page, wheel, 6.8, 4)  # beyond the rim, between contempt and happy
    values = frontend.values(KIND)
    assert used(values).keys() == {"contempt", "happy"} and values["happy"] > values["contempt"]
    assert values["intensity"] == 2
    drag(frontend.page, wheel, 0, 0)
    assert frontend.values(KIND)["intensity"] == 0
    assert wheel.locator("xpath=..").locator("output").text_content() == "neutral"


def test_the_numbers_move_the_dot(frontend, wheel):
    frontend.page.evaluate(
        """() => {
            const node = app.graph.nodes.find((node) => node.comfyClass === "DiceTalkEmotionWheel");
            const set = (name, value) => {
                const widget = node.widgets.find((widget) => widget.name === name);
                widget.value = value;
                widget.callback(value, app.canvas, node);
            };
            set("happy", 0); set("angry", 0.5); set("disgusted", 0.5); set("intensity", 1.5);
        }"""
    )
    assert wheel.locator("xpath=..").locator("output").text_content() == "(angry 0.5 + disgusted 0.5):1.5"
    x, y, radius = disc(wheel)
    dot = wheel.locator(".dicetalk-dot").bounding_box()
    dx, dy = dot["x"] + dot["width"] / 2 - x, dot["y"] + dot["height"] / 2 - y
    assert math.atan2(dx, -dy) % (2 * math.pi) == pytest.approx(4.5 * 2 * math.pi / 7, abs=0.03)
    assert math.hypot(dx, dy) / radius * 2 == pytest.approx(1.5, abs=0.04)
    frontend.page.evaluate(
        """() => {
            const node = app.graph.nodes.find((node) => node.comfyClass === "DiceTalkEmotionWheel");
            for (const widget of node.widgets.slice(0, 7)) { widget.value = 0; widget.callback(0, app.canvas, node); }
        }"""
    )
    assert wheel.locator("xpath=..").locator("output").text_content() == "neutral"


def test_a_number_that_is_typed_moves_the_dot(frontend, renderer, wheel):
    page = frontend.page
    if renderer == "canvas":
        x, y = page.evaluate(
            """() => {
                const node = app.graph.nodes.find((node) => node.comfyClass === "DiceTalkEmotionWheel");
                const widget = node.widgets.find((widget) => widget.name === "surprised");
                const box = app.canvas.canvas.getBoundingClientRect();
                const [x, y] = app.canvas.convertOffsetToCanvas([node.pos[0] + 180, node.pos[1] + widget.y + 10]);
                return [box.x + x, box.y + y];
            }"""
        )
        page.mouse.click(x, y)
        field = page.locator(".graphdialog input")
    else:
        row = page.get_by_test_id("node-widget").filter(has=page.get_by_text("surprised", exact=True)).first
        field = row.locator("input").first
    field.press("Control+a")
    field.press_sequentially("0.5")
    field.press("Enter")
    frontend.wait_values(KIND, surprised=0.5)
    assert wheel.locator("xpath=..").locator("output").text_content() == "(happy + surprised 0.5)"


def test_keys_move_the_dot(frontend, wheel):
    handle = wheel.get_by_role("slider")
    handle.focus()
    handle.press("ArrowUp")
    handle.press("ArrowUp")
    assert frontend.values(KIND)["intensity"] == pytest.approx(1.1)
    handle.press("ArrowRight")
    values = frontend.values(KIND)
    assert used(values).keys() == {"happy", "surprised"} and values["happy"] > values["surprised"] > 0
    assert handle.get_attribute("aria-valuenow") == "1.1"
    assert handle.get_attribute("aria-valuetext").endswith("intensity 1.1")
    handle.press("Home")
    assert frontend.values(KIND)["intensity"] == 0


def test_a_drag_is_one_step_of_undo(frontend, wheel):
    before = frontend.values(KIND)
    drag(frontend.page, wheel, 3, 1.5)
    frontend.focus_canvas()
    frontend.page.keyboard.press("Control+z")
    frontend.wait_values(KIND, **before)
    frontend.page.keyboard.press("Control+Shift+z")
    frontend.wait_values(KIND, happy=0, sad=1)


def test_what_is_queued_are_plain_numbers(frontend, wheel):
    drag(frontend.page, wheel, 4, 1.5)
    queued = frontend.queued(KIND)
    assert queued.keys() == {"dicetalk", "intensity", *MOODS}
    assert {name: queued[name] for name in MOODS} == {**dict.fromkeys(MOODS, 0), "angry": 1}
