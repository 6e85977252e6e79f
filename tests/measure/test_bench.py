import functools
import json

import pytest
import torch

from dicetalk.cli import main
from dicetalk.errors import InputError
from dicetalk.measure.bench import build, check_memory, what_fits, windows_of_clip
from dicetalk.sampling.counting import DICETALK, STOCK, Counts, Workload, count

TINY = ["bench", "--tiny", "--size", "64", "--frames", "2", "--device", "cpu"]


pytestmark = pytest.mark.usefixtures("one_thread")
COUNTED = functools.cache(count)


@pytest.fixture(autouse=True)
def counted_once(monkeypatch):
    """Several of these runs are of the same sizes, which alone say what is counted."""
    monkeypatch.setattr("dicetalk.measure.bench.count", COUNTED)


def test_a_window_step_of_the_released_size_is_within_its_budget():
    workload = Workload(512, 512, 25, torch.float16)
    ours, stock = count(DICETALK, workload), count(STOCK, workload)
    assert 80e12 < ours.flops <= 96e12
    assert ours.peak_bytes <= 0.5 * stock.peak_bytes
    assert ours.weight_bytes == 2 * 1_626_859_242


def profiled_peak(network, inputs):
    """The same peak by another measure: what PyTorch's CPU allocator gives out and takes back."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        network(**inputs, return_dict=False)
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize("kind", [STOCK, DICETALK])
def test_counted_memory_is_what_the_allocator_sees(kind):
    workload = Workload(256, 256, 4, tiny=True)
    with torch.inference_mode():
        network, inputs = build(workload, "cpu")[kind], workload.inputs(kind, "cpu")
        measured = profiled_peak(network, inputs)
    assert count(kind, workload).peak_bytes == pytest.approx(measured, rel=0.1)


def test_counted_operations_include_attention():
    wide, narrow = (count(STOCK, Workload(size, size, 1, tiny=True)).flops for size in (256, 128))
    assert wide > 4.05 * narrow  # all but attention among pixels grows with their number


def test_both_networks_share_their_weights():
    networks = build(Workload(tiny=True), "cpu")
    ours = dict(networks[DICETALK].named_parameters())
    assert all(p.data_ptr() == ours[name].data_ptr() for name, p in networks[STOCK].named_parameters())


def test_json_holds_every_number(capsys):
    assert main([*TINY, "--repeats", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["networks"]) == {"stock", "dicetalk"}
    for figures in report["networks"].values():
        seconds = figures["seconds"]
        assert len(figures["all_seconds"]) == 2
        assert min(figures["all_seconds"]) <= seconds <= max(figures["all_seconds"])
        assert figures["matrix_rate_share"] == pytest.approx(
            figures["flops"] / seconds / report["matrix_flops_per_second"]
        )
        assert figures["seconds_per_video_second"] == pytest.approx(seconds * 25 * 12.5 / 2)
        assert figures["seconds_per_clip"] == pytest.approx(seconds * windows_of_clip(10, 2))
        assert figures["counted_activation_bytes"] > 0
    ratio = report["networks"]["dicetalk"]["seconds"] / report["networks"]["stock"]["seconds"]
    assert report["ratios"]["dicetalk"]["seconds"] == pytest.approx(ratio)


def test_both_ways_to_compile_have_a_column(capsys):
    assert main([*TINY, "--repeats", "0", "--compile"]) == 0
    assert "compiled / stock  blocks compiled / stock" in capsys.readouterr().out


def test_the_table_shows_both_networks_and_their_ratio(capsys):
    assert main([*TINY, "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "3 branches × 2 frames at 64×64, float32" in lines[0]
    assert lines[2].split("  ")[-1] == "DICE-Talk / stock"
    time = next(line for line in lines if line.startswith("time of the step"))
    assert len(time.split()[-3:]) == 3 and all(float(cell) > 0 for cell in time.split()[-3:])


def test_zero_repeats_counts_only(capsys):
    assert main([*TINY, "--repeats", "0"]) == 0
    out = capsys.readouterr().out
    assert "operations, TFLOP" in out and "activations at peak, counted, GB" in out and "time of" not in out


@pytest.mark.parametrize(
    "option, value",
    [
        ("--size", "500"),
        ("--size", "0"),
        ("--size", "64x64x64"),
        ("--size", "big"),
        ("--frames", "0"),
        ("--frames", "-1"),
        ("--repeats", "x"),
        ("--dtype", "int8"),
        ("--device", "abacus"),
    ],
)
def test_bad_options_are_one_line(capsys, option, value):
    assert main([*TINY, f"{option}={value}"]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert f"{option} {value}" in output.err


def test_too_little_memory_names_what_fits():
    workload = Workload(512, 512, 24)
    counts = {STOCK: Counts(1, 10 * 10**9, 6 * 10**9), DICETALK: Counts(1, 9 * 10**9, 6 * 10**9)}
    check_memory(workload, counts, 17 * 10**9)
    check_memory(workload, counts, None)
    with pytest.raises(InputError, match=r"17\.0 GB .*11\.5 GB are free.* --frames 12; --size 320; --dtype float16"):
        check_memory(workload, counts, 11_500_000_001)
    with pytest.raises(InputError, match="--tiny"):
        check_memory(workload, counts, 5 * 10**9)


def test_an_interrupted_run_names_a_smaller_one(monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("dicetalk.measure.bench.measure", interrupted)
    assert main(["bench", "--tiny", "--size", "128", "--frames", "4", "--device", "cpu", "--repeats", "3"]) == 130
    assert "--frames 2; --size 64" in capsys.readouterr().err


def test_what_fits_a_wide_picture():
    assert what_fits(Workload(1024, 512, 1, torch.float16), 0.25) == "--size 512x256"


def test_windows_of_a_clip():
    assert windows_of_clip(12, 25) - windows_of_clip(10, 25) == 25  # 25 frames more are one window more in each step
    assert windows_of_clip(2, 25) <= 2 * 25  # a clip of one window, and the extra one


@pytest.mark.parametrize("what", ["--traffic", "--train", "--decode"])
def test_json_and_history_of_everything(what, tmp_path, capsys):
    file = tmp_path / "bench.jsonl"
    small = ["--tiny", "--size", "64", "--frames", "3", "--device", "cpu"]
    assert main(["bench", what, *small, "--json", "--history", str(file)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report and json.loads(file.read_text())["report"] == report


def test_one_measurement_at_a_time(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--traffic", "--speed"])
    assert ended.value.code == 2 and "not allowed with argument" in capsys.readouterr().err
