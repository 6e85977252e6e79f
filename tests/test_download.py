"""Downloads, against a server on this machine that behaves as the Hugging Face hub and GitHub do, and worse."""

import argparse
import functools
import hashlib
import http.server
import json
import shutil
import threading
from types import SimpleNamespace

import pytest

from dicetalk import download
from dicetalk.checkpoints import resolve_checkpoint
from dicetalk.commands import download as command
from dicetalk.download import HUB_FILES, PRIOR_SHA256, PRIOR_SIZE, describe, fetch, plan_download
from dicetalk.errors import InputError

SVD = "stabilityai/stable-video-diffusion-img2vid-xt"
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
            start = int((self.headers.get("Range") or "bytes=0-").partition("=")[2].partition("-")[0])
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
            self.wfile.write(rest)

        def refuse(self, status, code):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    return Handler


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    server.handle_error = lambda *arguments: None  # a client that went away in the middle of an answer
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(download, "PRIORS_URL", f"{hub.endpoint}/priors/")
    monkeypatch.setattr(
        download, "PRIOR_SHA256", {name: hashlib.sha256(data).hexdigest() for name, data in hub.priors.items()}
    )
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def plan(hub):
    """plan_download, asking the server of `hub`."""
    return functools.partial(plan_download, endpoint=hub.endpoint)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


EXPECTED_PLACES = {
    *(f"DICE-Talk/{part}.pth" for part in ("unet", "pose_guider", "audio_linear", "emo_model")),
    "whisper-tiny/config.json",
    "whisper-tiny/model.safetensors",
    f"{SVD.split('/')[1]}/vae/config.json",
    f"{SVD.split('/')[1]}/vae/diffusion_pytorch_model.fp16.safetensors",
    f"{SVD.split('/')[1]}/image_encoder/config.json",
    f"{SVD.split('/')[1]}/image_encoder/model.fp16.safetensors",
    f"{SVD.split('/')[1]}/feature_extractor/preprocessor_config.json",
    f"{SVD.split('/')[1]}/scheduler/scheduler_config.json",
    *(f"emotions/{name}" for name in PRIOR_SHA256),
}


def test_everything_is_fetched_to_its_place(hub, plan, tmp_path):
    files, refusals = plan(tmp_path)
    assert not refusals
    assert {str(file.target.relative_to(tmp_path)) for file in files} == EXPECTED_PLACES
    for file in files:
        fetch(file)
    found = contents(tmp_path)
    assert found.keys() == EXPECTED_PLACES
    assert found["DICE-Talk/unet.pth"] == UNET
    assert found["emotions/sad.npy"] == hub.priors["sad.npy"]
    assert found["whisper-tiny/config.json"] == hub.repositories["openai/whisper-tiny"]["config.json"]
    assert plan(tmp_path) == ([], {})


def test_the_tiny_checkpoint_lacks_nothing(tiny_checkpoint):
    assert plan_download(tiny_checkpoint, endpoint="http://127.0.0.1:1") == ([], {})


def test_the_users_token_goes_to_the_hub_and_nowhere_else(hub, plan, tmp_path):
    files, _ = plan(tmp_path, ["whisper", "emotions"])
    for file in files:
        fetch(file)
    for path, _, authorization, host in hub.requests:
        if path.startswith(("/cdn/", "/priors/")):
            assert authorization is None, f"{host}{path} was sent the token"
    assert any(authorization == "Bearer hf_secret" for *_, authorization, _ in hub.requests)


def test_only_what_is_missing(hub, plan, tmp_path):
    (tmp_path / "DICE-Talk").mkdir()
    (tmp_path / "DICE-Talk" / "unet.safetensors").write_bytes(b"mine")
    (tmp_path / "DICE-Talk" / "emo_model.pth").write_bytes(b"mine too")
    (tmp_path / "DICE-Talk" / "pose_guider.pth").write_bytes(b"")
    vae = tmp_path / SVD.split("/")[1] / "vae"
    vae.mkdir(parents=True)
    (vae / "diffusion_pytorch_model.safetensors").write_bytes(b"single precision")
    (tmp_path / "emotions").mkdir()
    (tmp_path / "emotions" / "sad.safetensors").write_bytes(b"converted")
    files, _ = plan(tmp_path)
    left = {str(file.target.relative_to(tmp_path)) for file in files}
    assert EXPECTED_PLACES - left == {
        "DICE-Talk/unet.pth",
        "DICE-Talk/emo_model.pth",
        f"{SVD.split('/')[1]}/vae/diffusion_pytorch_model.fp16.safetensors",
        "emotions/sad.npy",
    }
    for file in files:
        fetch(file)
    assert (tmp_path / "DICE-Talk" / "emo_model.pth").read_bytes() == b"mine too"


def test_a_file_that_appeared_meanwhile_is_not_replaced(hub, plan, tmp_path):
    (file,) = [file for file in plan(tmp_path, ["dice-talk"])[0] if file.target.name == "unet.pth"]
    file.target.parent.mkdir()
    file.target.write_bytes(b"put here by hand")
    fetch(file)
    assert file.target.read_bytes() == b"put here by hand"


def test_files_in_a_subfolder_of_the_repository_are_found_by_name(hub, plan, tmp_path):
    files = hub.repositories["EEEELY/DICE-Talk"]
    hub.repositories["EEEELY/DICE-Talk"] = {f"checkpoints/DICE-Talk/{name}": data for name, data in files.items()}
    hub.repositories["EEEELY/DICE-Talk"]["checkpoints/old_unet.pth"] = b"another file"
    for file in plan(tmp_path, ["dice-talk"])[0]:
        fetch(file)
    assert (tmp_path / "DICE-Talk" / "unet.pth").read_bytes() == UNET


def test_a_dropped_connection_is_resumed(hub, plan, tmp_path):
    hub.cuts = [200_000, 100_000]
    (file,) = [file for file in plan(tmp_path, ["dice-talk"])[0] if file.target.name == "unet.pth"]
    fetch(file)
    assert file.target.read_bytes() == UNET
    ranges = [asked for path, asked, *_ in hub.requests if path.startswith("/cdn/")]
    starts = [int(asked[len("bytes=") :].partition("-")[0]) if asked else 0 for asked in ranges]
    assert len(starts) == 3 and 0 == starts[0] < starts[1] <= 200_000 < starts[2] <= 300_000


def test_an_interrupted_run_is_continued_by_the_next(hub, plan, tmp_path, monkeypatch):
    (file,) = [file for file in plan(tmp_path, ["dice-talk"])[0] if file.target.name == "unet.pth"]
    hub.cuts = [150_000] + [0] * 20
    with pytest.raises(InputError, match="cannot be fetched .*run the command again: what is fetched already is kept"):
        fetch(file)
    (part,) = file.target.parent.iterdir()
    done = part.stat().st_size
    assert 100_000 < done <= 150_000 and part.read_bytes() == UNET[:done]
    hub.cuts, hub.requests = [], []
    fetch(file)
    assert file.target.read_bytes() == UNET
    assert [asked for path, asked, *_ in hub.requests if path.startswith("/cdn/")] == [f"bytes={done}-"]
    assert list(file.target.parent.iterdir()) == [file.target]


@pytest.mark.parametrize("wrong", ["same size", "shorter", "longer"])
def test_another_content_than_announced_is_removed(hub, plan, tmp_path, wrong):
    (file,) = [file for file in plan(tmp_path, ["dice-talk"])[0] if file.target.name == "unet.pth"]
    served = {"same size": bytes(len(UNET)), "shorter": UNET[:-1], "longer": UNET + b"x"}[wrong]
    hub.repositories["EEEELY/DICE-Talk"]["unet.pth"] = served
    with pytest.raises(InputError):
        fetch(file)
    assert not file.target.exists()
    hub.repositories["EEEELY/DICE-Talk"]["unet.pth"] = UNET
    for _ in range(2):  # what a wrong answer left is noticed when the file is whole, at the latest
        try:
            fetch(file)
        except InputError:
            continue
    assert file.target.read_bytes() == UNET


def test_a_spoilt_partial_file_is_noticed_and_removed(hub, plan, tmp_path):
    (file,) = [file for file in plan(tmp_path, ["dice-talk"])[0] if file.target.name == "unet.pth"]
    file.target.parent.mkdir()
    part = file.target.with_name(f".unet.pth.{file.checksum.partition(':')[2][:12]}.part")
    for spoilt in (bytes(len(UNET)), bytes(1000)):
        part.write_bytes(spoilt)
        with pytest.raises(InputError, match="gave another content, not the published unet.pth: it was removed"):
            fetch(file)
        assert list(file.target.parent.iterdir()) == []
    part.write_bytes(bytes(len(UNET) + 1))
    fetch(file)
    assert file.target.read_bytes() == UNET


def test_small_hub_files_are_checked_too(hub, plan, tmp_path):
    (file,) = [file for file in plan(tmp_path, ["whisper"])[0] if file.target.name == "config.json"]
    hub.repositories["openai/whisper-tiny"]["config.json"] = bytes(file.size)
    with pytest.raises(InputError, match="gave another content"):
        fetch(file)
    assert list(file.target.parent.iterdir()) == []


@pytest.mark.parametrize("served", [b"<html>Sign in</html>", bytes(PRIOR_SIZE), bytes(10**6), b""])
def test_a_prior_with_another_checksum_is_removed(hub, plan, tmp_path, served):
    (file,) = [file for file in plan(tmp_path, ["emotions"])[0] if file.target.name == "happy.npy"]
    hub.priors["happy.npy"] = served
    with pytest.raises(InputError, match="not the published happy.npy: it was removed"):
        fetch(file)
    assert list(file.target.parent.iterdir()) == []


def test_the_priors_are_pinned():
    files, _ = plan_download("nowhere", ["emotions"])
    assert {file.target.name: file.checksum for file in files} == {
        name: f"sha256:{digest}" for name, digest in PRIOR_SHA256.items()
    }
    assert all("/a8a92b164a3f552414d06a463a2b2e8eeb92db0b/examples/emo/" in file.url for file in files)
    assert all(file.url.startswith("https://") and file.size == 1403 for file in files)


@pytest.mark.parametrize("token", ["hf_secret", None])
def test_the_gate_of_stable_video_diffusion(hub, plan, tmp_path, monkeypatch, token):
    hub.gated.add(SVD)
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    files, refusals = plan(tmp_path)
    assert {str(file.target.relative_to(tmp_path)) for file in files} == {
        place for place in EXPECTED_PLACES if not place.startswith("stable")
    }
    (message,) = refusals.values()
    for part in (f"https://huggingface.co/{SVD}", "accept", "hf auth login", "svd_xt.safetensors"):
        assert part in message


def test_what_the_repository_no_longer_holds_is_named(hub, plan, tmp_path):
    del hub.repositories["openai/whisper-tiny"]["model.safetensors"]
    with pytest.raises(InputError, match="openai/whisper-tiny .* no longer holds model.safetensors"):
        plan(tmp_path, ["whisper"])
    del hub.repositories["openai/whisper-tiny"]
    with pytest.raises(InputError, match=r"refuses openai/whisper-tiny \(status 404\)"):
        plan(tmp_path, ["whisper"])


def test_no_connection_is_one_clear_line(hub, plan, tmp_path, monkeypatch):
    files, _ = plan(tmp_path)
    with pytest.raises(InputError, match="EEEELY/DICE-Talk cannot be fetched .*Check the connection") as error:
        plan_download(tmp_path, endpoint="http://127.0.0.1:1")
    assert "\n" not in str(error.value)
    for file in (files[0], files[-1]):
        elsewhere = download.RemoteFile(**{**vars(file), "url": "http://127.0.0.1:1/file"})
        with pytest.raises(InputError, match="cannot be fetched .*Check the connection") as error:
            fetch(elsewhere)
        assert "\n" not in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]


def test_a_full_disk_is_noticed_before_the_download(hub, plan, tmp_path, monkeypatch):
    monkeypatch.setattr("dicetalk.files.shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    (file,) = [file for file in plan(tmp_path, ["dice-talk"])[0] if file.target.name == "unet.pth"]
    with pytest.raises(InputError, match="needs 512 kB of free disk space, and there are 1.0 kB"):
        fetch(file)


# ---------------------------------------------------------------- the command


@pytest.fixture
def run(hub, plan, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "plan_download", plan)

    def run(*arguments, output=tmp_path / "set"):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        given = [] if output is None else ["--output", str(output)]
        return command.run(parser.parse_args([*map(str, arguments), *given]))

    return run


def test_command_says_what_and_how_much_before_it_starts(hub, run, tmp_path, capsys, monkeypatch):
    with pytest.raises(InputError, match="Nothing was fetched. Give --yes"):
        run()
    printed = capsys.readouterr().out
    assert f"To fetch into {tmp_path / 'set'}:" in printed and "20 files, " in printed
    assert (
        f"{tmp_path / 'set' / 'DICE-Talk' / 'unet.pth'}" in printed
        and "512 kB" in printed
        and "from EEEELY/DICE-Talk" in printed
    )
    assert not (tmp_path / "set").exists()
    assert run("--yes") == 0
    assert "Fetched 20 files" in capsys.readouterr().out
    assert contents(tmp_path / "set").keys() == EXPECTED_PLACES
    assert run("--yes") == 0
    assert capsys.readouterr().out == f"Nothing is missing in {tmp_path / 'set'}\n"


@pytest.mark.parametrize("answer, fetched", [("", True), ("y", True), ("Yes", True), ("n", False), ("what", False)])
def test_command_asks_on_a_terminal(run, tmp_path, monkeypatch, answer, fetched):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    if fetched:
        assert run("--only", "emotions") == 0
        assert len(contents(tmp_path / "set")) == 8
    else:
        with pytest.raises(InputError, match="Nothing was fetched"):
            run("--only", "emotions")
        assert not (tmp_path / "set").exists()


def test_command_fetches_the_rest_and_then_explains_the_gate(hub, run, tmp_path, capsys):
    hub.gated.add(SVD)
    with pytest.raises(InputError, match="asks you to accept its licence first"):
        run("--yes")
    assert f"Not among them: {SVD}" in capsys.readouterr().out
    assert len(contents(tmp_path / "set")) == 14
    with pytest.raises(InputError, match="asks you to accept its licence first"):
        run("--yes")


def test_command_only(run, tmp_path):
    assert run("--yes", "--only", "whisper", "emotions") == 0
    assert {place.partition("/")[0] for place in contents(tmp_path / "set")} == {"whisper-tiny", "emotions"}


def test_default_place(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    assert run("--yes", "--only", "emotions", output=None) == 0
    assert len(contents(tmp_path / "checkpoints")) == 8
    (tmp_path / "ComfyUI" / "models").mkdir(parents=True)
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    assert run("--yes", "--only", "emotions", output=None) == 0
    assert len(contents(tmp_path / "ComfyUI" / "models" / "dicetalk")) == 8


def test_what_an_older_port_left_is_completed(run, tmp_path, monkeypatch):
    models = tmp_path / "models"
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    names = [
        "dice_talk/unet.pth",
        "dice_talk/pose_guider.pth",
        "sonic/whisper-tiny/config.json",
        "sonic/whisper-tiny/model.safetensors",
    ]
    for name in (*names, "dicetalk/tiny/unet.pth", "dicetalk/tiny/UNTRAINED"):
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        (models / name).write_bytes(b"theirs")
    assert run("--yes", "--only", "dice-talk", "whisper", output=None) == 0
    new = {"DICE-Talk/audio_linear.pth", "DICE-Talk/emo_model.pth"}
    assert contents(models / "dice_talk").keys() == {"unet.pth", "pose_guider.pth", *new}
    checkpoint = resolve_checkpoint(models / "dice_talk")
    assert len(checkpoint.files) == 4 and checkpoint.file("unet") == models / "dice_talk" / "unet.pth"
    (models / "sonic" / "whisper-tiny" / "model.safetensors").unlink()
    assert run("--yes", "--only", "whisper", output=None) == 0
    assert resolve_checkpoint(models / "dice_talk").whisper == models / "dice_talk" / "whisper-tiny"
    assert len(contents(models / "dice_talk" / "whisper-tiny")) == 2


def test_describe(hub, plan, tmp_path):
    files, _ = plan(tmp_path, ["dice-talk"])
    lines = describe(files).splitlines()
    assert len(lines) == 5 and lines[-1].startswith("4 files, 51")
    assert len({line.index("from ") for line in lines[:-1]}) == 1, "a table"


def test_the_tiny_checkpoint_can_be_completed_after_a_part_is_lost(hub, plan, tiny_checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "whisper-tiny" / "model.safetensors").unlink()
    (file,) = plan(folder)[0]
    assert file.target == folder / "whisper-tiny" / "model.safetensors"
