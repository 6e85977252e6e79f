"""Errors in ComfyUI speak of nodes, sockets and menus: every text that a node's code can raise is looked at."""

import ast
import json
import re
from pathlib import Path

import pytest
from comfy_server import PromptError
from project import ROOT

FLAG = re.compile(r"--[a-z]")
COMFYUIS_OWN = {"--fp32-vae", "--cpu-vae"}  # options that ComfyUI itself is started with
GRAPH = json.loads((Path(__file__).parent / "graphs" / "quick_start.json").read_text())
VALUE = "VALUE"  # stands for what a message is about


def imported(path):
    """The modules of the repository that a file imports, here or later."""
    package = path.parent
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package
        for _ in range(node.level - 1):
            base = base.parent
        base = base.joinpath(*(node.module or "").split("."))
        for found in (
            base.with_suffix(".py"),
            base / "__init__.py",
            *(base / f"{each.name}.py" for each in node.names),
        ):
            if found.is_file():
                yield found


def reachable():
    """Every file of the library and of the nodes that the nodes import, and what those import."""
    waiting, seen = sorted((ROOT / "nodes").rglob("*.py")), set()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += imported(path)
    return sorted(seen)


def text_of(node):
    """The text that an expression gives, with VALUE for what is only known when it runs."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return VALUE


def texts(path):
    """(line, text) of every text of a file that is no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        skipped |= {id(part) for part in node.values} if isinstance(node, ast.JoinedStr) else set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and id(node) not in skipped:
            yield node.lineno, text_of(node)


def flags(text):
    return [flag for flag in re.findall(r"--[a-z][a-z0-9-]*", text) if flag not in COMFYUIS_OWN]


def test_no_text_of_a_node_holds_a_flag_of_the_command_line(pack):
    words = __import__(f"{pack.__name__}.nodes.words", fromlist=["in_comfyui"])
    found, seen = [], 0
    for path in reachable():
        own = path.is_relative_to(ROOT / "nodes")
        if path.name in ("words.py", "tiny.py"):  # of the latter only the sizes are used
            continue
        for line, text in texts(path):
            seen += bool(flags(text))
            if flags(text if own else words.in_comfyui(text)):
                found.append(f"{path.relative_to(ROOT)}:{line}: {text}")
    assert found == []
    assert seen >= 4, "texts that are translated are among those that were looked at"


@pytest.mark.parametrize(
    "told, said",
    [
        ("Fetch it with `python -m dicetalk download --only svd --output /x`.", "Fetch it: click Download in Load"),
        ("remove this file and run `python -m dicetalk download --only a`.", "remove this file and click Download in"),
        ("click Download in Load DICE-Talk, or run `python -m dicetalk download --only a`.", "click Download in Load"),
        (
            "say where it is, with --face x1,y1,x2,y2 (in ComfyUI with the input bboxes or mask)",
            "say where it is, with the",
        ),
        (
            "say which one is meant, with --face left or right, or X.",
            "say which one is meant, with the input face, or X.",
        ),
        ("give 9 s of it at most (--length 9)", "give 9 s of it at most"),
        ("make room, or name another folder with --output.", "make room."),
        (
            "run `python -m dicetalk emotion classes --checkpoint X` once, or leave out the meter.",
            "measure it once, as the node's help says, or switch off meter.",
        ),
    ],
)
def test_the_button_takes_the_place_of_the_command(pack, told, said):
    words = __import__(f"{pack.__name__}.nodes.words", fromlist=["in_comfyui"])
    text = words.in_comfyui(told)
    assert text.startswith(said) and "`" not in text and not flags(text)


def failure(server, graph):
    """What ComfyUI tells the page of a graph that fails."""
    told = []
    with pytest.raises(PromptError):
        server.run(graph, on_message=lambda message: message["type"] == "execution_error" and told.append(message))
    return told[0]["data"]


def test_a_users_slip_is_an_input_error_and_one_line_in_the_log(server):
    before = len(server.log_text())
    slip = {"class_type": "DiceTalkAudioFeatures", "inputs": {"dicetalk": ["5", 1], "audio": ["2", 0]}}
    slip["inputs"] |= {"start": 9000.0, "length": 0.0}
    save = {"class_type": "SaveAudio", "inputs": {"audio": ["7", 3], "filename_prefix": "slip"}}
    data = failure(server, {"2": GRAPH["2"], "5": GRAPH["5"], "7": slip, "8": save})
    assert data["exception_type"] == "InputError"
    assert data["exception_message"].startswith("start is 9000 s, but the audio lasts")
    log = server.log_text()[before:]
    assert "start is 9000 s" in log and "Traceback" not in log and "custom_nodes" not in log


def test_other_errors_keep_their_traceback(pack):
    import logging

    words = __import__(f"{pack.__name__}.nodes.words", fromlist=["_is_news"])
    record = logging.LogRecord("root", logging.ERROR, "", 0, "Traceback (most recent call last): …", (), None)
    try:
        raise ValueError("a fault of the program")
    except ValueError:
        assert words._is_news(record)
    errors = __import__(f"{pack.__name__}.dicetalk.errors", fromlist=["InputError"])
    try:
        raise errors.InputError("a slip")
    except errors.InputError:
        assert not words._is_news(record)
        record.msg = "!!! Exception during processing !!! a slip"
        assert words._is_news(record)
