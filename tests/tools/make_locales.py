"""Writes locales/LANGUAGE/nodeDefs.json, which ComfyUI shows the nodes in, from the translations in locales.json.

locales.json maps an English text of the nodes (a title, the name of an input or output, a description, a tooltip) to
its translations. A text that has changed in English has no translation until it gets a new one there. Run:
python tests/tools/make_locales.py
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import _paths  # noqa: F401
from comfy_server import ComfyServer
from project import ROOT

TABLE = Path(__file__).with_name("locales.json")
LOCALES = ROOT / "locales"
LANGUAGES = ["zh", "zh-TW", "ja", "ko", "es", "fr", "de", "ru", "pt-BR"]


def texts(nodes):
    """(path in nodeDefs.json, English text) of everything that is translated, from the pack's nodes in /object_info."""
    for node, node_info in sorted(nodes.items()):
        if node_info["python_module"] != "custom_nodes.comfyui-dice-talk":
            continue
        yield (node, "display_name"), node_info["display_name"]
        yield (node, "description"), node_info["description"]
        for name, (_, options) in {
            **node_info["input"].get("required", {}),
            **node_info["input"].get("optional", {}),
        }.items():
            yield (node, "inputs", name, "name"), name
            yield (node, "inputs", name, "tooltip"), options.get("tooltip")
        tooltips = node_info.get("output_tooltips") or [None] * len(node_info["output_name"])
        for place, (name, tooltip) in enumerate(zip(node_info["output_name"], tooltips)):
            yield (node, "outputs", str(place), "name"), name
            yield (node, "outputs", str(place), "tooltip"), tooltip


def locale(nodes, table, language):
    """The nodeDefs.json of a language, as a dict; a text without a translation is a KeyError."""
    made = {}
    for path, english in texts(nodes):
        if english is None:
            continue
        *folders, last = path
        into = made
        for name in folders:
            into = into.setdefault(name, {})
        into[last] = table[english][language]
    return made


def written(made):
    """A locale as its file has it."""
    return json.dumps(made, ensure_ascii=False, indent=1) + "\n"


def main():
    comfyui = Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser()
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as base:
        server = ComfyServer(comfyui, ROOT, base)
        server.start()
        try:
            nodes = server.get("/object_info")
        finally:
            server.stop()
    missing = {
        f"{language}: {english}"
        for _, english in texts(nodes)
        for language in LANGUAGES
        if english and not table.get(english, {}).get(language)
    }
    if missing:
        return "locales.json has no translation of\n" + "\n".join(sorted(missing))
    shutil.rmtree(LOCALES, ignore_errors=True)
    for language in LANGUAGES:
        (LOCALES / language).mkdir(parents=True)
        (LOCALES / language / "nodeDefs.json").write_text(written(locale(nodes, table, language)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
