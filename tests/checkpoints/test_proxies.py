"""Proxies that the environment names: used, or one line that says why not."""

import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import huggingface_hub
import pytest

from dicetalk.cli import main

NAMES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


def new_session():
    """huggingface_hub's next session asks the environment for proxies; before 1.0 each request does."""
    getattr(huggingface_hub, "close_session", lambda: None)()


@pytest.fixture
def download(tmp_path, monkeypatch, capsys):
    for name in [name for name in os.environ if name.upper() in NAMES]:
        monkeypatch.delenv(name)

    def run(group, name, value):
        monkeypatch.setenv(name, value)
        new_session()
        code = main(["download", "--output", str(tmp_path / "it"), "--only", group, "--yes"])
        return code, "".join(capsys.readouterr())

    yield run
    new_session()


@pytest.mark.parametrize("group", ["whisper", "emotions"])
@pytest.mark.parametrize(
    "name, value", [("ALL_PROXY", "socks5://127.0.0.1:9"), ("https_proxy", "socks5h://127.0.0.1:9")]
)
def test_a_socks_proxy_is_one_line(download, group, name, value):
    code, said = download(group, name, value)
    assert code != 0 and "Traceback" not in said
    assert f"The proxy that {name.upper()} names cannot be used" in said and "http:// proxy" in said


@pytest.mark.parametrize("value", ["ftp://127.0.0.1:9", "http://[", "http://127.0.0.1:port"])
def test_a_proxy_that_is_none_is_one_line(download, value):
    code, said = download("whisper", "HTTPS_PROXY", value)
    assert code != 0 and "Traceback" not in said and "cannot be" in said


@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTPS_PROXY"])
def test_an_http_proxy_is_asked(download, name):
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
        code, said = download("emotions", name, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
    assert asked and asked[0].startswith("raw.githubusercontent.com") and code != 0 and "Traceback" not in said
