"""Downloads from servers that lie: nothing is kept that was not announced, nothing lies elsewhere, nothing is run."""

import hashlib
import http.server
import os
import pickle
import shutil
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import PurePosixPath

import pytest
from hostile_table import Runs, files
from hub import PRIOR_SIZE, UNET, Hub, serving

from dicetalk.checkpoints import download
from dicetalk.checkpoints.download import HUB_FILES, PRIOR_SHA256, RemoteFile, fetch, plan_download
from dicetalk.errors import InputError


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(download, "_PAUSE", 0)
    for variable in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def hub():
    with serving(Hub()) as hub:
        yield hub


def announced(hub, **changes):
    """The hub tells these things of unet.pth instead of what is so; None leaves it out."""
    told = hub.info

    def info(repository):
        answer = told(repository)
        for entry in answer["siblings"]:
            if entry["rfilename"] == "unet.pth":
                entry |= {name: value for name, value in changes.items() if name != "sha256"}
                if "sha256" in changes:
                    entry["lfs"]["sha256"] = changes["sha256"]
        return answer

    hub.info = info


HOSTILE = "../../../../tmp/x"


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": HOSTILE},
        {"sha256": ""},
        {"sha256": "0" * 63},
        {"sha256": "A" * 64},
        {"lfs": None, "blobId": HOSTILE},
        {"lfs": None, "blobId": None},
        {"size": None},
        {"size": 0},
        {"size": -1},
        {"size": "510 kB"},
    ],
)
def test_a_hub_that_tells_no_size_or_checksum_is_not_asked_for_the_file(hub, tmp_path, changes):
    announced(hub, **changes)
    with pytest.raises(InputError, match="does not give the size and the checksum of unet.pth in EEEELY/DICE-Talk"):
        plan_download(tmp_path, ["dice-talk"], endpoint=hub.endpoint)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("name", ["../../unet.pth", "/etc/unet.pth", "..\\unet.pth/../unet.pth", "%2e%2e/unet.pth"])
def test_a_name_on_the_hub_decides_over_no_place_here(hub, tmp_path, name):
    announced(hub, rfilename=name)
    inside = tmp_path / "a" / "b" / "checkpoint"
    try:
        for file in plan_download(inside, ["dice-talk"], endpoint=hub.endpoint)[0]:
            fetch(file)
    except (InputError, KeyError):
        pass
    places = [path for path, state in files(tmp_path).items() if state != "folder"]
    assert all(path.startswith("a/b/checkpoint/DICE-Talk/") for path in places)


def test_all_places_lie_in_the_checkpoint():
    names = [place for _, group in HUB_FILES.values() for place in group.values()]
    names += [f"emotions/{name}" for name in PRIOR_SHA256]
    for name in names:
        assert ".." not in PurePosixPath(name).parts and not PurePosixPath(name).is_absolute() and "\\" not in name


class Endless(http.server.BaseHTTPRequestHandler):
    """Sends for ever, as many bytes as are taken, or redirects where it is told."""

    redirect = None
    sent = 0

    def do_GET(self):
        self.send_response(302 if self.redirect else 200)
        if self.redirect:
            self.send_header("Location", self.redirect)
        self.end_headers()
        while not self.redirect and type(self).sent < 10**9:
            try:
                type(self).sent += self.wfile.write(bytes(65536))
            except OSError:
                return

    def log_message(self, *arguments):
        pass


@contextmanager
def answering(kind, context=None):
    """The address of a server that answers as a class says, over TLS where a context is given."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.handle_error = lambda *arguments: None
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http{'s' if context else ''}://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def remote(folder, url, content=UNET, on_hub=True):
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return RemoteFile(folder / "unet.pth", "somewhere", url, len(content), checksum, on_hub)


@pytest.mark.parametrize("on_hub", [True, False])
def test_a_server_that_never_stops_sending_is_stopped(tmp_path, on_hub):
    kind = type("Endless", (Endless,), {})
    with answering(kind) as address, pytest.raises(InputError, match="not the published unet.pth: it was removed"):
        fetch(remote(tmp_path, f"{address}/file", on_hub=on_hub))
    assert files(tmp_path) == {}
    assert kind.sent < 50 * 10**6, "only what the system's buffers hold was sent beyond the announced size"


def test_a_partial_file_that_is_a_link_is_not_followed(hub, tmp_path):
    (file,) = [file for file in plan_download(tmp_path / "here", ["dice-talk"], endpoint=hub.endpoint)[0][:1]]
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    file.target.parent.mkdir(parents=True)
    part = file.target.with_name(f".{file.target.name}.{file.checksum.partition(':')[2][:12]}.part")
    part.symlink_to(outside)
    fetch(file)
    assert outside.read_bytes() == b"mine"
    assert file.target.read_bytes() == UNET and not file.target.is_symlink() and not part.is_symlink()


def test_what_is_fetched_is_neither_run_nor_opened_nor_executable(hub, tmp_path):
    trap = tmp_path / "trap"
    trap.mkdir()
    hub.repositories["EEEELY/DICE-Talk"]["unet.pth"] = pickle.dumps(Runs(trap))
    for file in plan_download(tmp_path / "here", ["dice-talk", "whisper"], endpoint=hub.endpoint)[0]:
        fetch(file)
        assert not file.target.stat().st_mode & 0o111
    assert not os.listdir(trap)


@pytest.mark.parametrize(
    "address", ["http://example.org/happy.npy", "ftp://example.org/happy.npy", "file:///etc/passwd"]
)
def test_no_redirect_leaves_tls(address):
    request = urllib.request.Request("https://example.org/happy.npy")
    with pytest.raises(urllib.error.URLError):
        download._NoDowngrade().redirect_request(request, None, 302, "Found", {}, address)
    elsewhere = download._NoDowngrade().redirect_request(
        request, None, 302, "Found", {}, "https://example.net/happy.npy"
    )
    assert elsewhere.full_url == "https://example.net/happy.npy"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost that nobody vouches for, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes a certificate to try TLS with, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost"], cwd=folder, check=True, capture_output=True
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


class Prior(Endless):
    content = bytes(PRIOR_SIZE)

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)


@pytest.mark.parametrize("on_hub", [True, False])
def test_a_server_that_nobody_vouches_for_is_not_talked_to(tls, tmp_path, on_hub):
    with answering(Prior, tls) as address, pytest.raises(InputError, match="(?i)certificate"):
        fetch(remote(tmp_path, f"{address}/file", Prior.content, on_hub))
    assert [state for state in files(tmp_path).values() if state != (0, state[1])] == []


def test_a_server_that_is_vouched_for_may_not_send_elsewhere_without_tls(tls, certificate, tmp_path, monkeypatch):
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    monkeypatch.setattr(download, "_tls", lambda: trusting)
    with answering(Prior, tls) as safe, answering(Prior) as plain:
        fetch(remote(tmp_path / "good", f"{safe}/file", Prior.content, on_hub=False))
        assert (tmp_path / "good" / "unet.pth").read_bytes() == Prior.content
        away = type("Away", (Endless,), {"redirect": f"{plain}/file"})
        with answering(away, tls) as address, pytest.raises(InputError, match="redirects to an address without https"):
            fetch(remote(tmp_path / "bad", f"{address}/file", Prior.content, on_hub=False))
    assert [name for name, state in files(tmp_path / "bad").items() if state != "folder"] == []
