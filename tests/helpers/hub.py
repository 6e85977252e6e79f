"""A server on this machine that behaves as the Hugging Face hub and GitHub do, and worse."""

import hashlib
import http.server
import json
import threading
from contextlib import contextmanager

from dicetalk.checkpoints.download import HUB_FILES, PRIOR_SHA256, PRIOR_SIZE

UNET = bytes(range(256)) * 2000


def git_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    """What the server holds and how it behaves; `requests` are the paths and Range headers that it was asked for."""

    def __init__(self):
        self.repositories = {
            repository: {name: f"{repository} {name}".encode() * 50 for name in names}
            for repository, names in HUB_FILES.values()
        }
        self.repositories["EEEELY/DICE-Talk"]["unet.pth"] = UNET
        self.repositories["EEEELY/DICE-Talk"]["README.md"] = b"about"
        self.priors = {name: name.encode().ljust(PRIOR_SIZE, b".") for name in PRIOR_SHA256}
        self.gated = set()
        self.cuts = []  # how many bytes each of the next answers gives before the connection drops
        self.hold_after = None  # of files with more bytes than this, the rest is sent when `go` is set
        self.holds_gate = False  # whether it says who is let in only when `go` is set
        self.go = threading.Event()
        self.busy = []  # statuses of the next answers in place of files
        self.knows_ranges = True
        self.pace = None  # (bytes, seconds): files come in pieces of this size, and so long after each other
        self.requests = []

    def info(self, repository):
        siblings = []
        for name, data in self.repositories[repository].items():
            entry = {"rfilename": name, "size": len(data), "blobId": git_id(data)}
            if not name.endswith((".json", ".md")):
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(entry)
        return {
            "id": repository,
            "sha": "c0ffee" + "0" * 34,
            "gated": "auto" if repository in self.gated else False,
            "siblings": siblings,
        }


def handler(hub):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            hub.requests.append(
                (path, self.headers.get("Range"), self.headers.get("Authorization"), self.headers.get("Host"))
            )
            if path.startswith("/priors/"):
                return self.answer(hub.priors[path.rpartition("/")[2]])
            if path.startswith("/cdn/"):
                _, _, owner, name, file = path.split("/", 4)
                return self.answer(hub.repositories[f"{owner}/{name}"][file])
            if path.startswith("/api/models/"):
                repository = "/".join(path.split("/")[3:5])
                if path.endswith("/auth-check"):
                    if hub.holds_gate:
                        hub.go.wait(60)
                    return self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
                if repository not in hub.repositories:
                    return self.refuse(404, "RepoNotFound")
                return self.answer(json.dumps(hub.info(repository)).encode(), "application/json")
            _, owner, name, resolve, revision, file = path.split("/", 5)
            assert (resolve, revision) == ("resolve", "c0ffee" + "0" * 34)
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/cdn/{owner}/{name}/{file}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def answer(self, data, kind="application/octet-stream"):
            if hub.busy and "/cdn/" in self.path:
                return self.refuse(hub.busy.pop(0), "")
            span = self.headers.get("Range") if hub.knows_ranges else None
            start = int((span or "bytes=0-").partition("=")[2].partition("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            rest = data[start:]
            if hub.cuts and "/api/" not in self.path:
                rest = rest[: hub.cuts.pop(0)]
                self.close_connection = True
            if hub.hold_after and len(rest) > hub.hold_after:
                self.wfile.write(rest[: hub.hold_after])
                rest = rest[hub.hold_after :]
                hub.go.wait(60)
            if hub.pace and "/cdn/" in self.path:
                size, seconds = hub.pace
                while len(rest) > size and not hub.go.wait(seconds):
                    self.wfile.write(rest[:size])
                    rest = rest[size:]
            self.wfile.write(rest)

        def refuse(self, status, code):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    return Handler


@contextmanager
def serving(hub):
    """Serve a hub; its `endpoint` is the address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    server.handle_error = lambda *arguments: None  # a client that went away in the middle of an answer
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
