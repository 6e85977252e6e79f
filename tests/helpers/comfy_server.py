"""A real ComfyUI server of its own for the tests, and a small client for it."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import websocket
from comfy_process import ON_GPU

START_SECONDS = 180
FOLDERS = ("models/vae", "models/clip_vision", "models/dicetalk", "custom_nodes", "input", "output", "user", "temp")


class PromptError(Exception):
    """A queued graph was refused or failed; the message is what the server says of it."""


class Interrupted(Exception):
    """A queued graph was cancelled."""


class ComfyServer:
    """ComfyUI with its own folders (`base`), this repository as its only custom node, and a free port.

    It runs on the CPU; with DICETALK_TESTS_ON=gpu in the environment on a GPU.

    Attributes:
        base: ComfyUI's base directory, with models/, input/, output/ and custom_nodes/.
        log: file with everything that the server prints.
        url: address of its HTTP interface.
    """

    def __init__(self, comfyui, pack, base, arguments=(), environment=None):
        self.comfyui, self.base, self.arguments = Path(comfyui), Path(base), list(arguments)
        self.environment = environment or {}
        self.log = self.base / "server.log"
        self.client_id = str(uuid.uuid4())
        self.process = None
        for folder in FOLDERS:
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        (self.base / "custom_nodes" / "comfyui-dice-talk").symlink_to(pack, target_is_directory=True)

    def start(self):
        """Start the server and wait until it answers; RuntimeError with the log's end if it does not."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "main.py", "--disable-auto-launch", "--disable-api-nodes"]
        command += [] if ON_GPU else ["--cpu"]
        if page := os.environ.get("DICETALK_FRONTEND"):  # the folder "static" of another comfyui_frontend_package
            command += ["--front-end-root", page]
        command += ["--port", str(port), "--base-directory", self.base, *self.arguments]
        command += ["--database-url", f"sqlite:///{self.base / 'user' / 'comfyui.db'}"]
        # Threads that wait without spinning: on a busy machine the same run takes a fifth of the time.
        quiet = {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        environment = {**os.environ, **quiet, **self.environment}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.comfyui, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return self.get("/system_stats")
            except OSError:
                time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"ComfyUI did not start; the end of its log:\n{self.log_tail()}")

    def stop(self):
        """End the server."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def log_text(self):
        return self.log.read_text(errors="replace")

    def log_tail(self, lines=60):
        return "\n".join(self.log_text().splitlines()[-lines:])

    def get(self, path):
        """The JSON answer to a GET request."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path, content=None, kind="application/json"):
        """The JSON answer, None if it is empty, to a POST request. `content` is a JSON value, or bytes of another kind.

        Raises:
            PromptError: the server refused the request; the message is its answer.
        """
        if not isinstance(content, bytes):
            content = json.dumps({} if content is None else content).encode()
        request = urllib.request.Request(self.url + path, content, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise PromptError(error.read().decode(errors="replace")) from None
        return json.loads(text) if text else None

    def upload(self, path):
        """Put an image, audio or video file into ComfyUI's input folder, as its page does; returns the name there."""
        path, border = Path(path), uuid.uuid4().hex
        head = f'--{border}\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        body = head.encode() + path.read_bytes() + f"\r\n--{border}--\r\n".encode()
        return self.post("/upload/image", body, f"multipart/form-data; boundary={border}")["name"]

    def run(self, graph, seconds=300, on_message=None):
        """Queue a graph in API format and wait for its end.

        Args:
            graph: node id → {"class_type", "inputs"}.
            seconds: to wait at most.
            on_message: called with every websocket message of this graph, a dict with "type" and "data".

        Returns:
            The outputs in the server's history: node id → what that node showed.

        Raises:
            PromptError: the graph was refused or a node failed.
            Interrupted: the graph was cancelled.
            TimeoutError: it took longer.
        """
        connection = websocket.create_connection(
            f"{self.url.replace('http', 'ws')}/ws?clientId={self.client_id}", timeout=seconds
        )
        try:
            queued = self.post("/prompt", {"prompt": graph, "client_id": self.client_id})
            prompt_id, deadline = queued["prompt_id"], time.monotonic() + seconds
            while time.monotonic() < deadline:
                message = connection.recv()
                if message == "":
                    raise RuntimeError(f"ComfyUI ended; the end of its log:\n{self.log_tail()}")
                if not isinstance(message, str):  # a preview picture
                    continue
                message = json.loads(message)
                if message["data"].get("prompt_id") != prompt_id:
                    continue
                if on_message:
                    on_message(message)
                if message["type"] == "execution_success":
                    return self._history(prompt_id)["outputs"]
                if message["type"] == "execution_error":
                    raise PromptError(f"{message['data']['node_type']}: {message['data']['exception_message']}")
                if message["type"] == "execution_interrupted":
                    raise Interrupted
            raise TimeoutError(f"the graph was not finished after {seconds} s")
        except websocket.WebSocketTimeoutException:
            raise TimeoutError(f"no message from the server for {seconds} s") from None
        finally:
            connection.close()

    def _history(self, prompt_id):
        """The history of a finished graph, which the server writes a moment after it said that it is finished."""
        while not (history := self.get(f"/history/{prompt_id}")):
            time.sleep(0.05)
        return history[prompt_id]

    def interrupt(self):
        """Cancel what runs, as the page's Cancel does."""
        self.post("/interrupt")

    def saved_file(self, outputs):
        """The path of the one file that the graph of these outputs saved."""
        shown = [item for output in outputs.values() for items in output.values() for item in items]
        (shown,) = [item for item in shown if isinstance(item, dict)]
        return self.base / shown["type"] / shown["subfolder"] / shown["filename"]


def furnished(comfyui, pack, base, checkpoint, environment=None, arguments=()):
    """A running ComfyServer with a checkpoint called tiny, random VAEs and CLIP vision tower, and the examples."""
    import comfy_files

    server = ComfyServer(comfyui, pack, base, arguments, environment)
    models = server.base / "models"
    (models / "dicetalk" / "tiny").symlink_to(Path(checkpoint).resolve(), target_is_directory=True)
    comfy_files.write_svd_vae(models / "vae" / "svd_vae.safetensors")
    comfy_files.write_small_vae(models / "vae" / "small_vae.safetensors")
    comfy_files.write_clip_vision(models / "clip_vision" / "clip_vision_h.safetensors")
    server.start()
    server.upload(Path(pack) / "demo" / "portrait.jpg")
    server.upload(Path(pack) / "demo" / "speech.flac")
    return server


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
