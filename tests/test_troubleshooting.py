"""Every message that docs/troubleshooting.md explains is one that the pack can give."""

import ast

import pytest
from project import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ROWS = [row for row in PAGE.splitlines() if row.startswith("| ") and not row.startswith(("| message |", "|---"))]


def literals():
    """Every piece of text in the code, as Python joins it."""
    for path in (*(ROOT / "dicetalk").rglob("*.py"), *(ROOT / "nodes").rglob("*.py"), ROOT / "install.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


TEXTS = set(literals())


@pytest.mark.parametrize("row", ROWS)
def test_the_message_exists(row):
    message, cause, remedy = (cell.strip() for cell in row.strip("|").split(" | "))
    pieces = [piece.strip(" .,:;()") for piece in message.split("…")]
    pieces = [piece for piece in pieces if len(piece) > 3]
    assert pieces and cause and remedy
    for piece in pieces:
        assert any(piece in text for text in TEXTS), f"no error says {piece!r}"


def test_every_row_stands_in_a_table():
    lines = PAGE.splitlines()
    assert all(lines[place - 1].startswith("|") for place, line in enumerate(lines) if line in ROWS)


def errors_of_nodes():
    """The text of each error that the nodes raise, with … for what differs."""
    for path in sorted((ROOT / "nodes").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError":
                parts = getattr(node.args[0], "values", node.args)
                text = "".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts)
                if len(text) > 20:  # others pass on an error of the library
                    yield text


@pytest.mark.parametrize("text", errors_of_nodes())
def test_a_nodes_error_is_explained(text):
    explained = [piece for row in ROWS for piece in row.split(" | ")[0].strip("| ").split("…") if len(piece) > 12]
    assert any(piece.strip(" .,:;()") in text for piece in explained)


def test_there_are_messages():
    assert len(ROWS) > 40
