"""Every row of docs/inputs.md names a test that is there."""

import ast

import pytest
from project import ROOT

ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("| ---", "| Input |"))
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_a_row_is_held_by_a_test(row):
    brought, read, test = row
    path, _, name = test.strip("`").partition("::")
    assert brought and read and name.startswith("test_")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
