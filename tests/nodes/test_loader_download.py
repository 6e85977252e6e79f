"""The Download button's routes on a real server, with a stand-in for the Hugging Face hub."""

import http.client
import importlib
import json
import shutil
import time
from urllib.parse import urlsplit

import pytest
from comfy_server import ComfyServer, PromptError
from hub import Hub, serving
from project import ROOT
from workflow import to_graph

from dicetalk.checkpoints.download import RemoteFile

ROUTE = "/dicetalk/download"
UNET = bytes(range(256)) * 8000
HELD = 1_000_000  # bytes after which a held line gives nothing more
PATIENCE = 4  # seconds; huggingface_hub's own are 10
PARTS = {f"DICE-Talk/{part}.pth" for part in ("unet", "pose_guider", "audio_linear", "emo_model")}
WHISPER = {"whisper-tiny/config.json", "whisper-tiny/model.safetensors"}


@pytest.fixture(scope="module")
def place():
    with serving(Hub()) as hub:
        hub.repositories["EEEELY/DICE-Talk"]["unet.pth"] = UNET
        yield hub


@pytest.fixture(scope="module")
def started(tmp_path_factory, comfyui, place):
    # No way to GitHub: what is asked of it fails at once, as on a machine without a connection.
    environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": place.endpoint, "HF_TOKEN": "hf_secret"}
    environment |= {"HF_HUB_DOWNLOAD_TIMEOUT": str(PATIENCE)}
    environment |= {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    server = ComfyServer(comfyui, ROOT, tmp_path_factory.mktemp("comfyui"), environment=environment)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(started, place):
    """The server with the emotion priors only; the others are to be fetched."""
    folder = started.base / "models" / "dicetalk"
    emotions = folder / "emotions"
    emotions.mkdir()
    for name in place.priors:
        (emotions / name).write_bytes(b"a prior")
    yield started
    place.go.set()
    started.post(f"{ROUTE}/cancel")
    wait(started)
    place.hold_after, place.pace, place.gated, place.requests = None, None, set(), []
    place.go.clear()
    shutil.rmtree(folder)
    folder.mkdir()


def request(server, method, path=ROUTE, body=None, **headers):
    """Status and JSON answer."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    try:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if answer.headers.get_content_type() == "application/json" else text
    finally:
        connection.close()


def start(server, body="{}", **headers):
    return request(server, "POST", ROUTE, body, **{"Content_Type": "application/json", **headers})


def wait(server, until=lambda state: state["state"] == "idle", seconds=60):
    deadline = time.monotonic() + seconds
    while not until(state := server.get(ROUTE)):
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    return state


def test_it_says_which_file_belongs_where_and_asks_nobody(server, place):
    state = server.get(ROUTE)
    assert state["folder"] == str(server.base / "models" / "dicetalk")
    assert set(state["missing"]) == PARTS | WHISPER
    assert state["complete"] == state["miniatures"] == ["miniature"]
    assert state["state"] == "idle" and state["error"] is None
    assert state["svd"] is False and state["without_svd"] == []  # the miniature has its own
    assert state["svd_folder"].endswith("checkpoints")
    assert place.requests == []


def test_a_click_fetches_everything_with_progress(server, place):
    place.hold_after = HELD
    assert start(server)[0] == 202

    state = wait(server, lambda state: state["done"] >= HELD)
    assert (state["state"], state["file"], state["done"]) == ("fetching", "unet.pth", HELD)
    assert state["total"] > len(UNET)
    status, refused = start(server)
    assert status == 409 and "running already" in refused["error"]
    place.go.set()
    state = wait(server)

    assert state["error"] is None and state["missing"] == [] and state["done"] == state["total"]
    assert state["complete"] == ["DICE-Talk", "miniature"]
    folder = server.base / "models" / "dicetalk"
    assert (folder / "DICE-Talk" / "unet.pth").read_bytes() == UNET
    assert {path.name for path in folder.rglob("*.part")} == set()
    assert server.get("/object_info/DiceTalkLoader")["DiceTalkLoader"]["input"]["required"]["checkpoint"][1][
        "options"
    ] == ["DICE-Talk", "miniature"]
    assert start(server) == (200, state), "nothing is missing any more"
    assert state["without_svd"] == ["DICE-Talk"] and state["svd"] is False
    svd = server.base / "models" / "checkpoints" / "svd_xt.safetensors"
    svd.parent.mkdir(exist_ok=True)
    svd.touch()
    state = server.get(ROUTE)
    assert state["without_svd"] == [] and state["svd"] is True


def test_every_workflow_names_what_the_button_fetched(server):
    start(server)
    assert wait(server)["complete"] == ["DICE-Talk", "miniature"]
    object_info = server.get("/object_info")
    workflows = sorted((ROOT / "example_workflows").glob("*.json"))
    assert workflows
    for path in workflows:
        graph = to_graph(json.loads(path.read_text(encoding="utf-8")), object_info)
        for node in graph.values():
            if node["class_type"] in ("LoadAudio", "LoadVideo"):
                node["inputs"] = dict.fromkeys(node["inputs"], "absent.mp4")  # so that nothing runs
        with pytest.raises(PromptError) as refused:
            server.post("/prompt", {"prompt": graph})
        kinds = {node["class_type"] for node in json.loads(str(refused.value))["node_errors"].values()}
        assert kinds and not {kind for kind in kinds if kind.startswith("DiceTalk")}, (path.stem, str(refused.value))


def cancel(server):
    return request(server, "POST", f"{ROUTE}/cancel", "{}", Content_Type="application/json")[1]


def kept(server):
    """How many bytes of the UNet are kept, in a file that is not whole."""
    folder = server.base / "models" / "dicetalk" / "DICE-Talk"
    (part,) = folder.glob(".unet.pth.*.part")
    assert part.read_bytes() == UNET[: part.stat().st_size] and not (folder / "unet.pth").exists()
    return part.stat().st_size


def test_cancel_on_a_slow_line_acts_at_once_and_the_next_click_goes_on(server, place):
    place.pace = (5000, 0.05)  # 100 kB/s, as fast as it can be
    start(server)
    before = wait(server, lambda state: state["done"] >= 50_000)["done"]

    begun = time.monotonic()
    assert cancel(server)["state"] in ("stopping", "idle")
    state = wait(server)

    assert time.monotonic() - begun < 3
    assert state["error"] is None and "DICE-Talk/unet.pth" in state["missing"]
    came = kept(server)
    assert before <= came < len(UNET) // 2

    place.pace, place.requests = None, []
    start(server)
    assert wait(server)["missing"] == []
    assert (server.base / "models" / "dicetalk" / "DICE-Talk" / "unet.pth").read_bytes() == UNET
    assert [span for path, span, *_ in place.requests if path == "/cdn/EEEELY/DICE-Talk/unet.pth"] == [f"bytes={came}-"]


def test_cancel_on_a_stalled_line_is_no_error(server, place):
    place.hold_after = HELD
    start(server)
    wait(server, lambda state: state["done"] >= HELD)

    begun = time.monotonic()
    assert cancel(server)["state"] == "stopping"
    state = wait(server)

    assert time.monotonic() - begun < PATIENCE + 4
    assert state["error"] is None and "DICE-Talk/unet.pth" in state["missing"]
    assert kept(server) == HELD


def test_an_error_after_cancel_is_the_stop(server, place, monkeypatch):
    def lost(repository):
        place.go.wait(60)
        raise ConnectionError

    monkeypatch.setattr(place, "info", lost)
    start(server)
    wait(server, lambda state: state["state"] == "asking")
    cancel(server)
    place.go.set()
    assert wait(server)["error"] is None
    start(server)
    assert "EEEELY/DICE-Talk cannot be fetched" in wait(server)["error"], "it is one without Cancel"


def test_cancel_while_the_hub_is_asked_asks_for_nothing_more(server, place, monkeypatch):
    answer = place.info

    def slow(repository):
        place.go.wait(60)
        return answer(repository)

    monkeypatch.setattr(place, "info", slow)
    start(server)
    wait(server, lambda state: state["state"] == "asking" and place.requests)
    cancel(server)
    place.go.set()
    assert wait(server)["error"] is None
    assert [path for path, *_ in place.requests] == ["/api/models/EEEELY/DICE-Talk"]


def test_a_download_that_goes_on_needs_room_for_the_rest_only(pack, place, tmp_path, monkeypatch):
    routes = importlib.import_module(f"{pack.__name__}.nodes.routes")
    file = RemoteFile(tmp_path / "unet.pth", "somewhere", "", 1000, "sha256:0123456789abcdef")
    (tmp_path / ".unet.pth.0123456789ab.part").write_bytes(bytes(900))
    asked = []
    monkeypatch.setattr(routes, "plan_download", lambda *args, **kwargs: ([file], {}))
    monkeypatch.setattr(routes, "require_space", lambda folder, size: asked.append(size))
    monkeypatch.setattr(routes, "fetch", lambda *args: None)
    routes.Download()._fetch_all(tmp_path)
    assert asked == [100]


def test_a_gated_repository_is_told_with_its_page_and_the_rest_is_fetched(server, place):
    place.gated = {"EEEELY/DICE-Talk"}
    start(server)
    state = wait(server)
    assert "https://huggingface.co/EEEELY/DICE-Talk" in state["error"] and "hf auth login" in state["error"]
    assert set(state["missing"]) == PARTS
    place.gated = set()
    start(server)
    state = wait(server)
    assert state["error"] is None and state["missing"] == []


def test_without_a_connection_the_error_is_one_sentence_and_the_server_lives(server):
    (server.base / "models" / "dicetalk" / "emotions" / "sad.npy").unlink()
    start(server)
    state = wait(server)
    assert "toto222/DICE-Talk cannot be fetched" in state["error"] and len(state["error"].splitlines()) == 1
    assert state["missing"] == ["emotions/sad.npy"], "what could be had was fetched first"
    assert server.get("/system_stats")


def test_a_complete_checkpoint_without_training_does_not_stand_in_the_way(server, tiny_checkpoint):
    (server.base / "models" / "dicetalk" / "tiny").symlink_to(tiny_checkpoint.resolve(), target_is_directory=True)
    state = server.get(ROUTE)
    assert state["complete"] == ["tiny", "miniature"]
    assert set(state["missing"]) == PARTS | WHISPER


def test_the_checkpoint_that_lacks_something_is_completed_with_what_it_does_not_share(server, place):
    folder = server.base / "models" / "dicetalk"
    for name in ("mine/unet.pth", "whisper-tiny/config.json", "whisper-tiny/model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"theirs")
    state = server.get(ROUTE)
    assert state["folder"] == str(folder / "mine")
    assert set(state["missing"]) == PARTS - {"DICE-Talk/unet.pth"}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused(server, place, method):
    status, _ = request(server, method, ROUTE, "{}", Content_Type="application/json")
    assert status == 405
    assert request(server, "GET", f"{ROUTE}/cancel")[0] in (404, 405)
    assert_nothing_happened(server, place)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ("{}", "text/plain", 415),
        ("{}", "application/x-www-form-urlencoded", 415),
        (None, "application/json", 400),
        ("{", "application/json", 400),
        ("[]", "application/json", 400),
        ("null", "application/json", 400),
        ('{"folder": "/tmp", "url": "http://127.0.0.1/"}', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        ("[" * 100_000, "application/json", 400),
    ],
)
def test_bad_bodies_are_refused(server, place, body, kind, status):
    for path in (ROUTE, f"{ROUTE}/cancel"):
        answered, answer = request(server, "POST", path, body, Content_Type=kind)
        assert answered == status and answer["error"]
    assert_nothing_happened(server, place)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.org"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Host": "comfy.example", "Origin": "http://example.org"},
    ],
)
def test_other_sites_are_refused(server, place, headers):
    assert start(server, **headers)[0] == 403
    assert request(server, "POST", f"{ROUTE}/cancel", "{}", Content_Type="application/json", **headers)[0] == 403
    assert request(server, "GET", ROUTE, **headers)[0] == 403
    assert_nothing_happened(server, place)


def test_its_own_page_is_let_in(server):
    own = {"Origin": server.url, "Sec_Fetch_Site": "same-origin"}
    assert request(server, "GET", ROUTE, **own)[0] == 200
    behind_a_proxy = {"Origin": "https://comfy.example", "Sec_Fetch_Site": "same-origin", "Host": "inner.example"}
    assert request(server, "GET", ROUTE, **behind_a_proxy)[0] == 200


def assert_nothing_happened(server, place):
    assert server.get(ROUTE)["state"] == "idle"
    assert place.requests == []
