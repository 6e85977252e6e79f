"""Downloads, against a server on this machine that behaves as the Hugging Face hub and GitHub do, and worse."""

import argparse
import functools
import hashlib
import os
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import huggingface_hub
import pytest
from hub import UNET, Hub, serving
from project import ROOT

from dicetalk.checkpoints import download
from dicetalk.checkpoints.download import PRIOR_SHA256, PRIOR_SIZE, describe, fetch, plan_download
from dicetalk.checkpoints.finding import resolve_checkpoint
from dicetalk.commands import download as command
from dicetalk.errors import InputError

SVD = "stabilityai/stable-video-diffusion-img2vid-xt"


@pytest.fixture
def hub(monkeypatch):
    with serving(Hub()) as hub:
        monkeypatch.setattr(download, "PRIORS_URL", f"{hub.endpoint}/priors/")
        monkeypatch.setattr(
            download, "PRIOR_SHA256", {name: hashlib.sha256(data).hexdigest() for name, data in hub.priors.items()}
        )
        monkeypatch.setattr(download, "_PAUSE", 0)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        yield hub


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
    file = the_unet(plan, tmp_path)
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


def the_unet(plan, folder):
    """The UNet's file, to be fetched into a folder."""
    return next(file for file in plan(folder, ["dice-talk"])[0] if file.target.name == "unet.pth")


def the_part(file):
    """What there is of a file that is not whole yet."""
    (part,) = file.target.parent.glob("*.part")
    assert not file.target.exists()
    return part


def starts(hub):
    """From which byte on the UNet was asked for."""
    asked = [span for path, span, *_ in hub.requests if path == "/cdn/EEEELY/DICE-Talk/unet.pth"]
    return [int(span.removeprefix("bytes=").removesuffix("-")) if span else 0 for span in asked]


def test_a_line_that_is_cut_again_and_again_gets_on_and_loses_nothing(hub, plan, tmp_path):
    hub.cuts = [200_000, 100_000] + [10_000] * 20
    file = the_unet(plan, tmp_path)
    fetch(file)
    assert file.target.read_bytes() == UNET
    assert starts(hub) == [0, 200_000, *range(300_000, 300_000 + 21 * 10_000, 10_000)]
    assert list(file.target.parent.iterdir()) == [file.target]


def test_an_interrupted_run_is_continued_by_the_next(hub, plan, tmp_path):
    file = the_unet(plan, tmp_path)
    hub.cuts = [150_000] + [0] * 20
    with pytest.raises(InputError, match="cannot be fetched .*start the download again: what is fetched alr"):
        fetch(file)
    assert the_part(file).read_bytes() == UNET[:150_000]
    hub.cuts, hub.requests = [], []
    fetch(file)
    assert file.target.read_bytes() == UNET
    assert starts(hub) == [150_000]
    assert list(file.target.parent.iterdir()) == [file.target]


def test_a_server_without_ranges_begins_anew(hub, plan, tmp_path):
    hub.knows_ranges, hub.cuts = False, [200_000, 100_000]
    file = the_unet(plan, tmp_path)
    counts = []
    fetch(file, counts.append)
    assert file.target.read_bytes() == UNET
    assert starts(hub) == [0, 200_000, 100_000] and counts[-1] == len(UNET)
    (tmp_path / "again").mkdir()
    file, hub.cuts = the_unet(plan, tmp_path / "again"), [200_000] * 50
    with pytest.raises(InputError, match="cannot be fetched"):
        fetch(file)
    assert len(hub.cuts) > 40, "not for ever"


def test_a_busy_server_is_asked_again(hub, plan, tmp_path):
    hub.busy = [503, 429]
    fetch(file := the_unet(plan, tmp_path))
    assert file.target.read_bytes() == UNET
    hub.busy = [503] * 50
    with pytest.raises(InputError, match=r"refuses EEEELY/DICE-Talk \(status 503\)"):
        fetch(the_unet(plan, tmp_path / "again"))
    assert len(hub.busy) == 45
    hub.busy = [404] * 50
    with pytest.raises(InputError, match=r"refuses EEEELY/DICE-Talk \(status 404\)"):
        fetch(the_unet(plan, tmp_path / "again"))
    assert len(hub.busy) == 49


def test_a_stalled_line_can_be_stopped_and_what_came_is_kept(hub, plan, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    hub.hold_after = 100_000
    counts = []

    def stop_when_nothing_comes(count):
        if counts and count == counts[-1]:
            raise KeyboardInterrupt
        counts.append(count)

    file = the_unet(plan, tmp_path)
    try:
        with pytest.raises(KeyboardInterrupt):
            fetch(file, stop_when_nothing_comes)
    finally:
        hub.go.set()
    kept = the_part(file).read_bytes()
    assert kept == UNET[: len(kept)] and len(kept) <= 100_000
    assert len(kept) > 100_000 - download._PIECE
    assert len(kept) == 100_000 or huggingface_hub.__version__.startswith("0.")


@pytest.mark.parametrize("wrong", ["same size", "shorter", "longer"])
def test_another_content_than_announced_is_removed(hub, plan, tmp_path, wrong):
    file = the_unet(plan, tmp_path)
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
    file = the_unet(plan, tmp_path)
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
    file = the_unet(plan, tmp_path)
    with pytest.raises(InputError, match="needs 512 kB of free disk space, and there are 1.0 kB"):
        fetch(file)


ODD_ANSWERS = {
    "no HTTP": b"garbage\r\n\r\n",
    "nothing": b"",
    "a piece cut off": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n57b\r\nabc",
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "a redirect to no address": b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n",
    "a redirect to itself": b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("on_hub", [True, False])
@pytest.mark.parametrize("answer", ODD_ANSWERS)
def test_an_odd_answer_is_one_clear_error(hub, tmp_path, answer, on_hub):
    class Odd(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(65536)
            self.request.sendall(ODD_ANSWERS[answer])

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/x"
        file = download.RemoteFile(tmp_path / "happy.npy", "somewhere", url, 1403, f"sha256:{'0' * 64}", on_hub)
        try:
            with pytest.raises(InputError, match="somewhere") as error:
                fetch(file)
        finally:
            server.shutdown()
    assert "\n" not in str(error.value)
    assert not file.target.exists()


# ---------------------------------------------------------------------- planning


def test_planning_can_be_stopped_before_each_request(hub, plan, tmp_path):
    hub.gated.add("EEEELY/DICE-Talk")
    for allowed in range(3):
        calls = []

        def stop(calls=calls, allowed=allowed):
            calls.append(1)
            if len(calls) > allowed:
                raise KeyboardInterrupt

        hub.requests.clear()
        with pytest.raises(KeyboardInterrupt):
            plan(tmp_path, ["dice-talk", "whisper"], on_request=stop)
        assert len(hub.requests) == allowed


def test_a_hub_that_does_not_say_who_is_let_in_is_not_waited_for(hub, plan, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    hub.gated.add(SVD)
    hub.holds_gate = True
    begun = time.monotonic()
    try:
        with pytest.raises(InputError, match=f"{SVD} cannot be fetched"):
            plan(tmp_path, ["svd"])
    finally:
        hub.go.set()
    assert time.monotonic() - begun < 20


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


def test_command_needs_no_room_for_what_an_interrupted_download_kept(run, plan, tmp_path, monkeypatch):
    files, _ = plan(tmp_path / "set", ["dice-talk"])
    part = files[0].target.with_name(f".unet.pth.{files[0].checksum.partition(':')[2][:12]}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(UNET[:400_000])
    left = sum(file.size for file in files) - 400_000
    monkeypatch.setattr("dicetalk.files.shutil.disk_usage", lambda path: SimpleNamespace(free=left))
    assert run("--only", "dice-talk", "--yes") == 0
    assert files[0].target.read_bytes() == UNET

    shutil.rmtree(tmp_path / "set")
    with pytest.raises(InputError, match="of free disk space"):
        run("--only", "dice-talk", "--yes")


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


def test_progress_is_told_and_a_stopped_download_goes_on(hub, plan, tmp_path):
    class Stop(Exception):
        pass

    def stop_at_half(count):
        if count >= len(UNET) // 2:
            raise Stop

    file = the_unet(plan, tmp_path)
    with pytest.raises(Stop):
        fetch(file, stop_at_half)
    kept = the_part(file).stat().st_size
    assert len(UNET) // 2 <= kept < len(UNET)

    counts = []
    fetch(file, counts.append)

    assert counts == sorted(counts) and counts[0] == kept and counts[-1] == len(UNET)
    assert file.target.read_bytes() == UNET


# ---------------------------------------------------------------- in processes of their own


@pytest.fixture
def begin(hub, tmp_path):
    """Starts the command in a process of its own, to fetch the four parts."""
    begun = []
    # With Python's own handler, which a shell's background jobs lack.
    driver = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    driver += "from dicetalk.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", driver, "download", "--only", "dice-talk", "--yes", "--output", tmp_path]
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}

    def begin():
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
        return begun[-1]

    yield begin
    hub.go.set()
    for process in begun:
        process.kill()
        process.communicate()


def wait_for_part(folder, size):
    """The partial file of the UNet, once it has so many bytes."""
    deadline = time.monotonic() + 60
    while not [part for part in folder.glob("DICE-Talk/.unet.pth.*.part") if part.stat().st_size >= size]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (part,) = folder.glob("DICE-Talk/.unet.pth.*.part")
    return part


def test_the_second_of_two_processes_is_told_and_does_no_harm(hub, begin, tmp_path):
    hub.hold_after = 200_000
    first = begin()
    part = wait_for_part(tmp_path, 190_000)
    asked = starts(hub)

    second = begin()
    _, said = second.communicate(timeout=60)

    assert second.returncode == 2
    (error,) = [line for line in said.splitlines() if "error:" in line]
    assert f"{tmp_path / 'DICE-Talk' / 'unet.pth'} is being downloaded by another process" in error
    assert starts(hub) == asked and part.stat().st_size <= 200_000
    hub.go.set()
    assert first.wait(60) == 0
    assert (tmp_path / "DICE-Talk" / "unet.pth").read_bytes() == UNET
    assert {path.suffix for path in (tmp_path / "DICE-Talk").iterdir()} == {".pth"}


def test_a_process_that_was_killed_stands_in_nobodys_way(hub, begin, tmp_path):
    hub.hold_after = 200_000
    first = begin()
    part = wait_for_part(tmp_path, 190_000)
    first.kill()
    first.communicate()
    kept = part.stat().st_size
    hub.hold_after, hub.requests = None, []

    second = begin()

    assert second.wait(60) == 0
    assert starts(hub) == [kept] and kept >= 190_000
    assert (tmp_path / "DICE-Talk" / "unet.pth").read_bytes() == UNET


@pytest.mark.skipif(os.name == "nt", reason="no such signal there")
def test_control_c_on_a_slow_line_acts_at_once_and_keeps_what_came(hub, begin, tmp_path):
    hub.pace = (500, 0.02)  # 25 kB/s, as fast as it can be
    process = begin()
    part = wait_for_part(tmp_path, 20_000)
    before = part.stat().st_size
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - started < 15, "the rest takes 19"
    assert process.returncode == 130 and "Traceback" not in said
    assert before <= part.stat().st_size < len(UNET) // 2
    assert part.read_bytes() == UNET[: part.stat().st_size]
