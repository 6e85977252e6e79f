"""Processes of their own that begin with the slow libraries loaded: copies of one that has loaded them.

Loading them takes ten seconds of a core each time, and is the same each time. `start` is used like
`subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=PIPE, stderr=PIPE, text=True)`, which it is where
Linux's `fork` and passing of open files are missing.
"""

import atexit
import contextlib
import functools
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading

from project import ROOT

COMMAND = "import runpy; runpy.run_module('dicetalk', run_name='__main__', alter_sys=True)"  # python -m dicetalk


def start(code, *arguments, environment=None, cwd=ROOT):
    """Run Python code in a process of its own.

    Args:
        code: run as `python -c` does it.
        arguments: sys.argv[1:].
        environment: the variables, os.environ for None. PYTHONPATH and OMP_NUM_THREADS work.
        cwd: its folder.
    """
    environment = dict(os.environ if environment is None else environment)
    arguments = list(map(str, arguments))
    if sys.platform == "linux":
        return Copy(code, arguments, environment, str(cwd))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, cwd=cwd, **pipes)


def start_group(code, *arguments, processes=2, environment=None, cwd=ROOT):
    """The same in several processes that know each other, by the variables that torchrun sets."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    meeting |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    environment = {**(os.environ if environment is None else environment), **meeting}
    return [
        start(code, *arguments, environment=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, cwd=cwd)
        for rank in range(processes)
    ]


class Copy:
    """What is used of `subprocess.Popen`."""

    def __init__(self, code, arguments, environment, cwd):
        (out, out_end), (err, err_end), (status, status_end) = (os.pipe() for _ in range(3))
        order = json.dumps({"code": code, "arguments": arguments, "environment": environment, "cwd": cwd}).encode()
        control = _original()
        socket.send_fds(control, [len(order).to_bytes(4, "big")], [out_end, err_end, status_end])
        control.sendall(order)
        for end in (out_end, err_end, status_end):
            os.close(end)
        self.stdout, self.stderr, self._status = open(out), open(err), open(status)
        self.pid, self.returncode = int(self._status.readline()), None

    def wait(self):
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(int(self._status.readline()))
        return self.returncode

    def communicate(self, timeout=None):
        """What it prints until its end; AssertionError, and its end, if it takes longer."""
        texts = {}
        readers = [
            threading.Thread(target=lambda file=file: texts.update({file: file.read()}), daemon=True)
            for file in (self.stdout, self.stderr)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                self.kill()
                raise AssertionError(f"process {self.pid} did not end within {timeout} s")
        self.wait()
        return texts[self.stdout], texts[self.stderr]

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


@functools.cache
def _original():
    """A connection to the process that is copied."""
    ours, theirs = socket.socketpair()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, str(theirs.fileno())]
    process = subprocess.Popen(
        command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    theirs.close()
    atexit.register(lambda: (ours.close(), process.wait()))
    return ours


def _serve(control):
    """Returns, in each copy, its order; ends when the connection does."""
    while True:
        length, files, _, _ = socket.recv_fds(control, 4, 3)
        with contextlib.suppress(ChildProcessError):  # those that have ended, and none
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not length:
            sys.exit()
        order = b""
        while len(order) < int.from_bytes(length, "big"):
            order += control.recv(2**16)
        if not os.fork():
            break
        for file in files:
            os.close(file)
    control.close()
    out, err, status = files
    if pid := os.fork():  # the one that waits for the copy
        os.close(out)
        os.close(err)
        os.write(status, f"{pid}\n".encode())
        os.write(status, f"{os.waitpid(pid, 0)[1]}\n".encode())
        os._exit(0)
    os.close(status)
    for file, number in ((out, 1), (err, 2)):
        os.dup2(file, number)
        os.close(file)
    return json.loads(order)


if __name__ == "__main__":
    import accelerate  # noqa: F401
    import torch
    import transformers.models.clip.modeling_clip  # noqa: F401
    import transformers.models.whisper.modeling_whisper  # noqa: F401

    import dicetalk.pipeline
    import dicetalk.rendering  # noqa: F401

    order = _serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs lack
    if threads := order["environment"].get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    sys.path[0] = ""  # as `python -c` has it
    sys.path[1:1] = order["environment"].get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = ["-c", *order["arguments"]]
    with tempfile.NamedTemporaryFile("w", suffix=".py", encoding="utf-8") as file:
        file.write(order["code"])
        file.flush()
        runpy.run_path(file.name, run_name="__main__")
