"""The first minutes of a new user: `python tests/tools/first_run.py`, with ComfyUI in $COMFYUI_PATH.

A new folder gets a copy of ComfyUI without models, inputs, outputs and custom nodes, and a Python with ComfyUI's
requirements alone. From there the clock runs: the pack is cloned, `install.py` adds what it needs, ComfyUI starts, its
page opens in Chromium, the first template is chosen in the dialog, and Run is clicked. Printed are the seconds of each
part, and what the page or the log said was wrong; exit code 1 if it said anything or made no video. The folder keeps
pictures of the page, the video and the log.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _paths  # noqa: F401
from comfy_server import free_port
from frontend import Frontend, chromium
from project import ROOT

TEMPLATE = "1 Quick start"
LEFT_OUT = ("models", "input", "output", "user", "temp", "custom_nodes", ".git", "__pycache__")
TARGET = 180  # seconds, without ComfyUI's own installation


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="of the copy (default: a new temporary one)")
    parser.add_argument("--python", type=Path, help="has ComfyUI's requirements (default: a new environment gets them)")
    args = parser.parse_args()
    source = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    folder = args.folder or Path(tempfile.mkdtemp(prefix="first-run-"))
    comfyui = folder / "ComfyUI"
    shutil.copytree(source, comfyui, ignore=lambda path, names: LEFT_OUT if Path(path) == source else ["__pycache__"])
    (comfyui / "custom_nodes").mkdir()
    python = args.python.absolute() if args.python else new_python(folder, comfyui)

    parts, wrong = {}, []
    pack = comfyui / "custom_nodes" / "comfyui-dice-talk"
    timed(parts, "git clone", lambda: run("git", "clone", "--quiet", ROOT, pack))
    timed(parts, "install.py", lambda: run(python, pack / "install.py"))
    with open(folder / "server.log", "wb") as log:
        port = free_port()
        command = [python, "main.py", "--cpu", "--disable-auto-launch", "--disable-api-nodes", "--port", str(port)]
        server = subprocess.Popen(command, cwd=comfyui, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        use_page(f"http://127.0.0.1:{port}", folder, parts, wrong)
    finally:
        server.terminate()
        server.wait(20)

    log = (folder / "server.log").read_text(errors="replace")
    wrong += [line for line in log.splitlines() if any(word in line for word in ("ERROR", "Traceback", "FAILED"))]
    videos = sorted((comfyui / "output").rglob("*.mp4"))
    for name, seconds in parts.items():
        print(f"{name:28}{seconds:7.1f} s")
    total = sum(parts.values())
    print(f"{'together':28}{total:7.1f} s (target: {TARGET})")
    print(f"videos: {', '.join(map(str, videos)) or 'none'}\npictures of the page, log: {folder}")
    for line in wrong:
        print(f"wrong: {line}")
    return 0 if videos and not wrong and total <= TARGET else 1


def new_python(folder, comfyui):
    """A new environment with ComfyUI's requirements, PyTorch's for CPUs where pip is set up so."""
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-r", comfyui / "requirements.txt")
    return python


def run(*command):
    subprocess.run([*map(str, command)], check=True, stdin=subprocess.DEVNULL)


def timed(parts, name, do):
    start = time.monotonic()
    result = do()
    parts[name] = time.monotonic() - start
    return result


def use_page(url, folder, parts, wrong):
    """What a person does in the page, from the server's start to the video in its node."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})

        def arrive():
            while True:
                try:
                    return page.goto(url)
                except Error:  # the server is not up yet
                    time.sleep(0.5)

        timed(parts, "ComfyUI starts", arrive)
        frontend = Frontend(page, url)
        timed(parts, "its page opens", frontend.open)
        timed(parts, "the template is chosen", lambda: choose(page))
        page.screenshot(path=folder / "1 template.png")
        timed(parts, "Run, until the video shows", lambda: run_it(page))
        page.screenshot(path=folder / "2 result.png")
        wrong += frontend.errors + page.locator(".p-toast-message, .p-message-error").all_text_contents()
        browser.close()


def choose(page):
    dialog = page.get_by_role("dialog")
    if not dialog.count():  # a first visit opens it by itself
        page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    dialog.get_by_text("comfyui-dice-talk", exact=True).first.click()
    page.get_by_test_id(f"template-workflow-{TEMPLATE}").click()
    page.wait_for_function("app.graph.nodes.some((node) => node.title?.startsWith('Talking Portrait'))")
    dialog.first.wait_for(state="hidden")


def run_it(page):
    page.evaluate(
        """async () => {
            const { api } = await import("/scripts/api.js");
            window.ended = null;
            for (const kind of ["execution_success", "execution_error", "execution_interrupted"]) {
                api.addEventListener(kind, (event) => (window.ended = kind), { once: true });
            }
        }"""
    )
    page.get_by_test_id("queue-button").click()
    page.wait_for_function("window.ended", timeout=900_000)
    page.locator("video").first.wait_for(state="attached")
    page.wait_for_timeout(1000)


if __name__ == "__main__":
    sys.exit(main())
