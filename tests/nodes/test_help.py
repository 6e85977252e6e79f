"""Every node has a help page: each of its inputs with its range and effect, an example, and common errors."""

import re
import urllib.request

import pytest
from project import ROOT

DOCS = ROOT / "web" / "docs"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
OPEN = re.compile("found$|saved ones$|ComfyUI's$")  # where the choices depend on what is installed


@pytest.fixture(scope="module")
def shown(server):
    """Node id → what the server tells of it."""
    return {name: node for name, node in server.get("/object_info").items() if name.startswith("DiceTalk")}


def all_of(inputs):
    """Input → [type, options] of the required and the optional ones."""
    return inputs["required"] | inputs.get("optional", {})


def faults(page, node):
    """What a help page lacks, one line each."""
    found = []
    if not page.startswith(f"# {node['display_name']}\n"):
        found.append("its title is not the node's name")
    for part in ("Example.", "Common errors"):
        if not re.search(rf"^\*\*{part}\*\*\s*\S", page, re.MULTILINE):
            found.append(f"no {part}")
    if not re.search(r"^- \*\S[^*]*\S\*.*: \S", page.partition("**Common errors**")[2], re.MULTILINE):
        found.append("its common errors tell no remedy")
    described = {}
    for line in page.partition("**Inputs**\n\n")[2].partition("\n\n")[0].splitlines():
        names, span, effect = re.fullmatch(r"- (\*\*\w+\*\*(?:, \*\*\w+\*\*)*)(?: \((.*?)\))?: (\S.*)", line).groups("")
        described |= {name: (span, effect) for name in re.findall(r"\w+", names)}
    inputs = all_of(node["input"])
    found += [f"{name} is no input" for name in described.keys() - inputs.keys()]
    for name, (kind, *options) in inputs.items():
        span, effect = described.get(name, ("", ""))
        found += wrong_span(name, kind, options[0] if options else {}, span)
        if not effect:
            found.append(f"{name} has no effect")
    return found


def wrong_span(name, kind, options, span):
    """What is wrong with the range that a page gives for an input, in a list of no line or one."""
    if kind in ("INT", "FLOAT"):
        stated = re.match(r"(-?[\d.]+) to (-?[\d.]+)", span.replace("2^64 − 1", str(2**64 - 1)))
        least, most = options["min"], options["max"]
        if not stated or (type(most)(stated[1]), type(most)(stated[2])) != (least, most):
            return [f"{name} is from {least} to {most}, not {span!r}"]
    if kind == "COMBO" and not OPEN.search(span):
        missing = [each for each in options["options"] if each not in span.split(", ")]
        return [f"{name} can be {', '.join(missing)} too"] if missing or not span else []
    if kind in ("COMBO", "BOOLEAN", "STRING") and not span:
        return [f"{name} has no range"]
    return []


def test_every_node_has_a_page_and_no_other(shown):
    assert PAGES.keys() == shown.keys()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_tells_each_input_an_example_and_errors(shown, name):
    assert faults(PAGES[name], shown[name]) == []


@pytest.mark.parametrize(
    "name, old, new, fault",
    [
        ("DiceTalkEmotionBank", "**Example.**", "For instance:", "no Example."),
        ("DiceTalkEmotionBank", "**Common errors**", "**Errors**", "no Common errors"),
        ("DiceTalkEmotionBank", "**Inputs**", "Inputs", "mode has no effect"),
        ("DiceTalkEmotionBank", "1 to 4096", "1 to 64", "top_k is from 1 to 4096, not '1 to 64'"),
        ("DiceTalkEmotionBank", " (1 to 4096)", "", "top_k is from 1 to 4096, not ''"),
        ("DiceTalkEmotionBank", "full, nearest, top-k", "full, nearest", "mode can be top-k too"),
        ("DiceTalkEmotionBank", "**compare**", "**comparison**", "comparison is no input"),
        ("DiceTalkSaveEmotion", " (on, off)", "", "overwrite has no range"),
        ("DiceTalkSaveEmotion", "# Save", "# Keep", "its title is not the node's name"),
    ],
)
def test_what_a_page_lacks_is_noticed(shown, name, old, new, fault):
    assert old in PAGES[name] and fault in faults(PAGES[name].replace(old, new), shown[name])


def test_load_dice_talk_is_the_first_source_that_is_named_of_svds_parts(shown):
    tooltips = [
        options["tooltip"]
        for node in shown.values()
        for kind, *more in all_of(node["input"]).values()
        for options in more
        if kind in ("VAE", "CLIP_VISION")
    ]
    assert len(tooltips) == 7  # of Portrait, Re-act, Dialogue and Video
    assert all(" from Load DICE-Talk" in text.partition("Image Only")[0] for text in tooltips)


def test_the_server_gives_the_pages_to_the_frontend(server):
    with urllib.request.urlopen(server.url + "/extensions/comfyui-dice-talk/docs/DiceTalkSampler.md") as page:
        assert "three-way guidance" in page.read().decode()
