"""The ablations' trainings differ in what their names say, are kept, and end in a table."""

import json

import pytest
import torch
from project import ROOT

from dicetalk.checkpoints.finding import resolve_checkpoint
from dicetalk.checkpoints.tiny import emotion_means
from dicetalk.errors import InputError
from dicetalk.measure import ablations
from dicetalk.measure.ablations import ABLATIONS, OneLinearMap, ablate, table
from dicetalk.miniature.options import World

pytest.importorskip("accelerate")
SMALL = World(takes=8, people=4, steps=2, cool_down=0, batch=2, frames=2, seeds=1, measured=1, sampling_steps=1)


def test_what_was_measured_is_kept_and_not_done_again(tmp_path, monkeypatch):
    monkeypatch.setattr(ablations, "_LONGEST", 3)
    monkeypatch.setattr(ablations, "_AMONG", 2)
    checkpoint = resolve_checkpoint(str(ROOT / "miniature"))
    chosen = [each for each in ABLATIONS if each.linear or each.title == "by retrieval"]
    first = ablate(checkpoint, tmp_path, SMALL, chosen[:1])
    again = ablate(checkpoint, tmp_path, SMALL, chosen)
    assert again[: len(first)] == first, "numbers of the run before, not new ones"
    assert json.loads((tmp_path / "ablations.json").read_text())["results"] == again
    assert sorted((each["title"], each["bank"]) for each in again) == [
        ("by retrieval", "full"),
        ("by retrieval", "nearest"),
        ("no bank: tokens from one linear map", "full"),
    ]
    assert all(0 <= each[name] <= 1 for each in again for name in ("accuracy", "identity"))

    monkeypatch.setattr(ablations, "train", None)
    assert ablate(checkpoint, tmp_path, SMALL, chosen) == again, "and nothing is trained"
    with pytest.raises(InputError, match="another world: takes was 8, and is 9"):
        ablate(checkpoint, tmp_path, World(**vars(SMALL) | {"takes": 9}), chosen)
    (tmp_path / "ablations.json").write_text("{")
    with pytest.raises(InputError, match=r"ablations\.json cannot be read"):
        ablate(checkpoint, tmp_path, SMALL, chosen)


def test_each_training_leaves_out_what_its_name_says():
    changed = {each.title: ablations._options(each, SMALL, 1) for each in ABLATIONS}
    first = changed.pop("all of it, by the full bank")
    assert first.discrimination > 0 and first.discrimination_noise == "weighted" and first.bank == "full"
    assert changed["no discrimination objective"].discrimination == 0
    assert changed["the objective at all noise levels"].discrimination_noise == "all"
    assert changed["the objective below sigma 1"].discrimination_noise == "low"
    assert changed["by retrieval"].bank == "retrieval" and changed["half of the clips each way"].bank == "both"
    assert all(options.seed == 1 for options in changed.values())


def test_one_linear_map_is_linear_and_drops_an_emotion_to_the_tokens_of_none():
    priors = {name: torch.from_numpy(mean) for name, mean in emotion_means().items()}
    model = OneLinearMap(priors, hidden=8, codes=4, code_dim=8, tokens=2, width=8, classifier_dims=(8, 8, 8, 22))
    one, other = priors["happy"][None], priors["sad"][None]
    torch.testing.assert_close(model(0.3 * one + 0.7 * other), 0.3 * model(one) + 0.7 * model(other))
    tokens, loss = model.training_tokens(torch.cat([one, other]), False, torch.tensor([True, False]))
    torch.testing.assert_close(tokens[:1], model.unconditional())
    torch.testing.assert_close(tokens[1:], model(other))
    assert float(loss) == 0


def test_the_table_has_the_mean_and_the_range_of_the_seeds():
    numbers = {"accuracy": 0.5, "lips": 0.25, "identity": 1.0, "denoising": 0.125}
    rows = [
        {"title": "by retrieval", "bank": "nearest", "seed": 0, **numbers},
        {"title": "by retrieval", "bank": "nearest", "seed": 1, **numbers | {"accuracy": 0.75}},
    ]
    assert table(rows).splitlines()[2:] == [
        "| by retrieval | the nearest code | 62% (50% to 75%) | 0.25 (0.25 to 0.25) | 100% (100% to 100%) "
        "| 0.125 (0.125 to 0.125) |"
    ]
