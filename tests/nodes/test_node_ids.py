"""Node ids, inputs and outputs are in people's saved graphs: they may grow, but not shrink or change.

After an addition: python tests/nodes/test_node_ids.py writes it to node_ids.json, and refuses anything but additions.
"""

import copy
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from comfy_server import ComfyServer  # noqa: E402
from project import ROOT  # noqa: E402

FROZEN = Path(__file__).with_name("node_ids.json")


def interface(server):
    """Node id → {"required", "optional": input → type, "outputs": types}, as the server tells it."""
    shown = {}
    for name, node in sorted(server.get("/object_info").items()):
        if node["python_module"] != "custom_nodes.comfyui-dice-talk":
            continue
        inputs = {kind: node["input"].get(kind, {}) for kind in ("required", "optional")}
        shown[name] = {
            **{kind: {key: value[0] for key, value in these.items()} for kind, these in inputs.items()},
            "outputs": node["output"],
        }
    return shown


def broken(frozen, now):
    """What saved graphs would stumble over, one line each."""
    faults = []
    for name, was in frozen.items():
        if name not in now:
            faults.append(f"{name} is gone")
            continue
        inputs = now[name]["required"] | now[name]["optional"]
        for key, kind in (was["required"] | was["optional"]).items():
            if inputs.get(key) != kind:
                faults.append(f"{name}.{key} was {kind} and is {inputs.get(key, 'gone')}")
        faults += [f"{name}.{key} is new and required" for key in now[name]["required"] if key not in was["required"]]
        for kind in ("required", "optional"):  # the values of widgets are saved by their order
            old = [key for key in was[kind] if key in inputs]
            if list(now[name][kind])[: len(old)] != old:
                faults.append(f"{name}'s {kind} inputs have another order, or a new one stands before them")
        if now[name]["outputs"][: len(was["outputs"])] != was["outputs"]:
            faults.append(f"{name}'s outputs were {was['outputs']} and are {now[name]['outputs']}")
    return faults


@pytest.fixture(scope="module")
def now(server):
    return interface(server)


@pytest.fixture
def frozen():
    return json.loads(FROZEN.read_text())


def test_nothing_that_graphs_rely_on_has_changed(frozen, now):
    assert broken(frozen, now) == []


def test_every_node_is_frozen(frozen, now):
    assert frozen == now, "run: python tests/nodes/test_node_ids.py"


@pytest.mark.parametrize(
    "change",
    [
        lambda now: now.pop("DiceTalkLoader"),
        lambda now: now["DiceTalkLoader"]["required"].pop("checkpoint"),
        lambda now: now["DiceTalkPortrait"]["required"].update(image="MASK"),
        lambda now: now["DiceTalkLoader"]["required"].update(more="INT"),
        lambda now: now["DiceTalkEmotion"].update(optional={"new": "INT", **now["DiceTalkEmotion"]["optional"]}),
        lambda now: now["DiceTalkLoader"]["outputs"].reverse(),
        lambda now: now["DiceTalkLoader"]["outputs"].pop(),
    ],
)
def test_a_break_is_noticed(frozen, change):
    changed = copy.deepcopy(frozen)
    change(changed)
    assert len(broken(frozen, changed)) == 1


def test_growth_is_no_break(frozen):
    grown = copy.deepcopy(frozen) | {"DiceTalkNew": {"required": {}, "optional": {}, "outputs": []}}
    grown["DiceTalkLoader"]["optional"]["more"] = "INT"
    grown["DiceTalkLoader"]["outputs"].append("INT")
    assert broken(frozen, grown) == []


def main():
    """Freeze what was added."""
    comfyui = Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser()
    with tempfile.TemporaryDirectory() as base:
        server = ComfyServer(comfyui, ROOT, base)
        server.start()
        try:
            now = interface(server)
        finally:
            server.stop()
    faults = broken(json.loads(FROZEN.read_text()), now) if FROZEN.exists() else []
    if not faults:
        FROZEN.write_text(json.dumps(now, indent=2) + "\n")
    return "\n".join(faults)


if __name__ == "__main__":
    sys.exit(main())
