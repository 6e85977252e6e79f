"""The project's texts use plain words: none of those that CONTRIBUTING.md lists to avoid."""

import ast
import json
import re

import pytest
from project import ROOT
from test_documents import PAGES

GUIDE = ROOT / "CONTRIBUTING.md"
SOURCES = [ROOT / name for name in ("__init__.py", "install.py", "dev.py")]
SOURCES += sorted(path for folder in ("dicetalk", "nodes", "tests/tools") for path in (ROOT / folder).rglob("*.py"))
SOURCES.remove(ROOT / "dicetalk" / "drawn" / "sentences.py")  # what drawn people say


def words():
    """Word or phrase to avoid → what to use instead, from the table of the guide. A number means any number."""
    table = GUIDE.read_text(encoding="utf-8").partition("| avoid | use |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    return {re.sub(r"\d+", "1", word): use for avoid, use in rows for word in re.split(", ", avoid)}


AVOIDED = words()
PATTERN = re.compile(
    "|".join(rf"\b{re.escape(word)}\b".replace("1", r"\d+").replace(r"\ ", r"\s+") for word in AVOIDED), re.IGNORECASE
)


def unwanted(text):
    """The words of a text to avoid, one line each with what to use instead. Names in backticks are no words."""
    text = re.sub(r"`[^`\n]*`", "", text)
    for found in PATTERN.finditer(text):
        word = re.sub(r"\d+", "1", re.sub(r"\s+", " ", found[0])).lower()
        line = text.count("\n", 0, found.start()) + 1
        yield f"line {line}: {found[0]!r}: use {AVOIDED[word]}"


def in_code(text):
    """The words to avoid in a Python file's literals, docstrings among them."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier():
            yield from (f"literal at line {node.lineno}, {each}" for each in unwanted(node.value))


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*PAGES, ROOT / "NOTICE"], ids=name_of)
def test_documents_use_plain_words(path):
    text = path.read_text(encoding="utf-8")
    if path == GUIDE:
        text = text.partition("## Words")[0]
    assert list(unwanted(text)) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_messages_and_docstrings_use_plain_words(path):
    assert list(in_code(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", sorted((ROOT / "web").glob("*.js")), ids=name_of)
def test_the_editors_use_plain_words(path):
    assert list(unwanted(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", sorted((ROOT / "example_workflows").glob("*.json")), ids=name_of)
def test_the_notes_of_workflows_use_plain_words(path):
    nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
    notes = [node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote"]
    assert notes and [each for note in notes for each in unwanted(note)] == []


def test_the_guide_lists_twenty_rows():
    assert len(set(AVOIDED.values())) == 20


@pytest.mark.parametrize("text", ["It is written Anew.", "It goes\n    on.", "some 350 pixels", "The file lies there."])
def test_a_word_to_avoid_is_noticed(text):
    assert len(list(unwanted(text))) == 1
    assert len(list(in_code(f"def f():\n    {text!r}\n"))) == 1


def test_other_words_are_not():
    assert not list(unwanted("A skin belongs to it; replies, standards, an error, some pixels, bearing."))
