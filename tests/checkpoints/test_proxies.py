"""Proxies that the environment names: used, or one line that says why not."""

import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from project import ROOT

NAMES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


def download(folder, group, **proxies):
    left = {name: value for name, value in os.environ.items() if name.upper() not in NAMES}
    command = [sys.executable, "-m", "dicetalk", "download", "--output", str(folder / "it"), "--only", group, "--yes"]
    run = subprocess.run(command, env=left | proxies, cwd=ROOT, capture_output=True, text=True, timeout=300)
    return run.returncode, run.stdout + run.stderr


@pytest.mark.parametrize("group", ["whisper", "emotions"])
@pytest.mark.parametrize(
    "name, value", [("ALL_PROXY", "socks5://127.0.0.1:9"), ("https_proxy", "socks5h://127.0.0.1:9")]
)
def test_a_socks_proxy_is_one_line(tmp_path, group, name, value):
    code, said = download(tmp_path, group, **{name: value})
    assert code != 0 and "Traceback" not in said
    assert f"The proxy that {name.upper()} names cannot be used" in said and "http:// proxy" in said


@pytest.mark.parametrize("value", ["ftp://127.0.0.1:9", "http://[", "http://127.0.0.1:port"])
def test_a_proxy_that_is_none_is_one_line(tmp_path, value):
    code, said = download(tmp_path, "whisper", HTTPS_PROXY=value)
    assert code != 0 and "Traceback" not in said and "cannot be" in said


@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTPS_PROXY"])
def test_an_http_proxy_is_asked(tmp_path, name):
    asked = []

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self):
            asked.append(self.path)
            self.send_error(403)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Proxy)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        code, said = download(tmp_path, "emotions", **{name: f"http://127.0.0.1:{server.server_port}"})
    finally:
        server.shutdown()
    assert asked and asked[0].startswith("raw.githubusercontent.com") and code != 0 and "Traceback" not in said
