"""The pack as its users get it: packed, beside libraries that are missing, and quick to import."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from comfy_server import ComfyServer, PromptError
from project import ROOT

LONGEST_IMPORT = 0.5  # seconds of processor time

IMPORT = """
import asyncio, json, sys, time
sys.path.insert(0, sys.argv[1])
sys.argv[1:], root, harness = ["--cpu"], sys.argv[2], sys.argv[3]
import comfy.options
comfy.options.enable_args_parsing()
import nodes, server
from comfy_api import latest
sys.path.append(harness)
from comfy_process import load_pack
from pathlib import Path
before, start = set(sys.modules), time.process_time()
pack = load_pack(Path(sys.path[0]), Path(root))
async def load():
    extension = await pack.comfy_entrypoint()
    await extension.on_load()
    return [node.GET_SCHEMA().node_id for node in await extension.get_node_list()]
names = asyncio.run(load())
seconds = time.process_time() - start
print("\\n" + json.dumps([seconds, sorted({name.partition(".")[0] for name in set(sys.modules) - before}), names]))
"""

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""


def test_importing_the_pack_is_quick_and_loads_nothing_heavy(comfyui):
    command = [sys.executable, "-c", IMPORT, str(comfyui), str(ROOT), str(ROOT / "tests" / "helpers")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    seconds, loaded, names = json.loads(done.stdout.splitlines()[-1])
    assert "DiceTalkLoader" in names
    assert seconds < LONGEST_IMPORT
    others = {name for name in loaded if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert others <= {"comfy_process", "dicetalk_pack"}, "libraries that ComfyUI has not loaded itself"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The repository's files as a commit would have them, in a repository of their own."""
    git = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(git, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this copy is not a git repository, whose files comfy-cli packs")
    folder = tmp_path_factory.mktemp("clone")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def comfy(clone, tmp_path_factory):
    """comfy-cli in that repository, with settings of its own: arguments → what it prints."""
    if find_spec("comfy_cli") is None:
        pytest.skip("comfy-cli is not installed")
    home = str(tmp_path_factory.mktemp("home"))
    environment = {**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}

    def run(*arguments):
        command = [sys.executable, "-m", "comfy_cli", "--skip-prompt", *arguments]
        done = subprocess.run(
            command, cwd=clone, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run("tracking", "disable")
    return run


def test_validate_is_clean(comfy):
    said = comfy("node", "validate")
    assert "All validation checks passed" in said
    assert "warning" not in said.lower() and "error" not in said.lower()


@pytest.fixture(scope="module")
def packed(comfy, clone, tmp_path_factory):
    """The packed zip, unpacked."""
    comfy("node", "pack")
    folder = tmp_path_factory.mktemp("zip") / "comfyui-dice-talk"
    with zipfile.ZipFile(clone / "node.zip") as file:
        file.extractall(folder)
    return folder


def test_the_zip_holds_what_users_need_and_nothing_else(packed):
    tops = {path.name for path in packed.iterdir()}
    assert {
        "__init__.py",
        "nodes",
        "dicetalk",
        "web",
        "example_workflows",
        "subgraphs",
        "locales",
        "requirements.txt",
        "install.py",
    } <= tops
    assert {"pyproject.toml", "README.md", "LICENSE", "NOTICE", "CHANGELOG.md"} <= tops
    assert not tops & {"tests", ".ci", ".github", ".git", ".gitignore", ".comfyignore", "dev.py", "CONTRIBUTING.md"}
    assert not tops & {"findings", "miniature"}
    assert ".pre-commit-config.yaml" not in tops
    for folder in ("web", "example_workflows", "subgraphs", "locales", "api", "nodes", "dicetalk"):
        there = {path.relative_to(packed) for path in (packed / folder).rglob("*") if path.is_file()}
        tracked = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert {path for path in tracked if "__pycache__" not in path.parts} == there
    assert sum(path.stat().st_size for path in packed.rglob("*") if path.is_file()) < 10 * 2**20


@pytest.fixture(scope="module")
def bare_server(packed, comfyui, tiny_checkpoint, tmp_path_factory):
    """ComfyUI with the unpacked zip, and without diffusers and soxr."""
    base, hide = tmp_path_factory.mktemp("bare"), tmp_path_factory.mktemp("hide")
    (hide / "sitecustomize.py").write_text(HIDE.format(hidden={"diffusers", "soxr"}))
    server = ComfyServer(comfyui, packed, base, environment={"PYTHONPATH": str(hide)})
    (base / "models" / "dicetalk" / "tiny").symlink_to(tiny_checkpoint.resolve(), target_is_directory=True)
    server.start()
    yield server
    server.stop()


def test_comfyui_starts_without_a_library_and_the_log_says_what_to_do(bare_server):
    lines = [line for line in bare_server.log_text().splitlines() if "DICE-Talk needs" in line]
    assert len(lines) == 1
    assert "diffusers>=" in lines[0] and "soxr>=" in lines[0] and "install.py" in lines[0]
    assert "Traceback" not in bare_server.log_text() and "IMPORT FAILED" not in bare_server.log_text()


def test_every_node_of_the_zip_is_there_and_says_the_same_when_run(bare_server):
    shown = bare_server.get("/object_info")
    frozen = json.loads((Path(__file__).parent / "node_ids.json").read_text())
    assert frozen.keys() <= shown.keys()
    graph = {
        "1": {"class_type": "DiceTalkLoader", "inputs": {"checkpoint": "tiny", "weight_dtype": "default"}},
        "2": {"class_type": "DiceTalkEmotion", "inputs": {"dicetalk": ["1", 1], "emotion": "sad", "intensity": 1.0}},
        "3": {
            "class_type": "DiceTalkSaveEmotion",
            "inputs": {"emotion": ["2", 0], "name": "mine", "overwrite": False},
        },
    }
    with pytest.raises(PromptError, match="DiceTalkLoader: DICE-Talk needs diffusers>="):
        bare_server.run(graph)


def test_the_zips_pages_and_workflows_are_served(bare_server):
    assert "1 Quick start" in bare_server.get("/workflow_templates")["comfyui-dice-talk"]
    for path in ("download.js", "docs/DiceTalkLoader.md"):
        with urllib.request.urlopen(f"{bare_server.url}/extensions/comfyui-dice-talk/{path}") as answer:
            assert answer.status == 200
    assert "Unable to parse pyproject.toml" not in bare_server.log_text()
