"""Every node has a help page that speaks of each of its inputs."""

import urllib.request
from pathlib import Path

DOCS = Path(__file__).parents[2] / "web" / "docs"


def test_every_node_has_a_page_that_names_its_inputs(server):
    shown = {name: node for name, node in server.get("/object_info").items() if name.startswith("DiceTalk")}
    assert {page.stem for page in DOCS.glob("*.md")} == shown.keys()
    for name, node in shown.items():
        page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {node['display_name']}\n")
        for input_name in node["input"]["required"] | node["input"].get("optional", {}):
            assert input_name in page, f"{name}.md does not speak of {input_name}"


def test_the_server_gives_the_pages_to_the_frontend(server):
    with urllib.request.urlopen(server.url + "/extensions/comfyui-dice-talk/docs/DiceTalkSampler.md") as page:
        assert "three-way guidance" in page.read().decode()
