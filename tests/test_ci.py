"""What the automation names agrees with the project: Pythons, ComfyUI, the version of ruff, the fields of the forms."""

import re
import runpy
import shlex

import pytest
import yaml
from project import ROOT

TESTS = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))["jobs"]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def commands(job):
    return [step["run"] for step in TESTS[job]["steps"] if "run" in step]


def test_the_oldest_supported_python_and_comfyui_are_tested():
    matrix = TESTS["test"]["strategy"]["matrix"]
    assert matrix["python"][0] == re.search(r'requires-python = ">=(.+)"', PYPROJECT)[1]
    assert matrix["comfyui"][0] == re.search(r'requires-comfyui = ">=(.+)"', PYPROJECT)[1]
    assert matrix["comfyui"][1] == "latest" and len(matrix["python"]) == 4


def test_the_comfyui_of_the_matrix_is_the_one_that_is_installed(monkeypatch):
    (step,) = [step for step in TESTS["test"]["steps"] if step.get("run") == "python dev.py test"]
    ((name, value),) = step["env"].items()
    assert value == "${{ matrix.comfyui }}"
    for wanted in ("latest", "0.33.0"):
        monkeypatch.setenv(name, wanted)
        assert runpy.run_path(str(ROOT / "dev.py"))["COMFYUI_VERSION"] == wanted


def test_style_is_checked_with_the_same_ruff_before_a_commit():
    assert commands("style")[1:] == ["ruff check .", "ruff format --check ."]
    (pin,) = re.findall(r"ruff==\S+", commands("style")[0])
    assert [hook["additional_dependencies"] for hook in HOOKS] == [[pin], [pin]]
    assert [shlex.split(hook["entry"])[:2] for hook in HOOKS] == [["ruff", "check"], ["ruff", "format"]]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_has_what_github_asks_for(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"] and form["description"] and form["body"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) and all(
        field["attributes"]["label"] for field in fields
    )
    assert all(field["type"] in ("textarea", "dropdown", "input", "checkboxes") for field in fields)
    assert all(field["attributes"]["options"] for field in fields if field["type"] == "dropdown")


def test_the_forms_are_there():
    assert [path.name for path in FORMS] == ["bug.yml", "feature.yml"]
