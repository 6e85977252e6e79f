"""Titles, descriptions, inputs and outputs of all nodes, in every language of locales/."""

import copy
import json
import re
import sys

import pytest
from project import ROOT

sys.path.insert(0, str(ROOT / "tests" / "tools"))
from make_locales import LANGUAGES, LOCALES, TABLE, locale, texts, written  # noqa: E402


@pytest.fixture(scope="module")
def nodes(server):
    return server.get("/object_info")


@pytest.fixture(scope="module")
def table():
    return json.loads(TABLE.read_text(encoding="utf-8"))


def kept(text):
    """What a translation keeps: numbers (with . or ,), commands, names of files, folders, inputs and options."""
    text = re.sub(r"(?<=\d),(?=\d)", ".", text)
    names = r"`[^`]+`|[A-Za-z]+(?:_[A-Za-z0-9]+)+|\w+/\w+|\.[a-z]{3,}|(?:DICE|Hugging|MediaPipe|UNet)\b"
    options = (
        r"\b(?:barycentre|moments|evidence|top-k|automatic|karras|euler|happy|surprised|fear|sad|angry|disgusted)\b"
    )
    return sorted(set(re.findall(rf"{options}|{names}|\d+(?:\.\d+)?", text, re.ASCII)))


def test_there_are_the_nine_languages():
    assert {path.name for path in LOCALES.iterdir()} == set(LANGUAGES) and len(LANGUAGES) == 9


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_input_and_output_is_there_and_nothing_else(language, nodes, table):
    there = (LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8")
    assert there == written(locale(nodes, table, language)), "run: python tests/tools/make_locales.py"


def test_an_input_without_translation_is_noticed(nodes, table):
    grown = copy.deepcopy(nodes)
    grown["DiceTalkLoader"]["input"]["optional"] = {"more": ["INT", {}]}
    with pytest.raises(KeyError, match="more"):
        locale(grown, table, "zh")


def test_the_table_holds_nothing_that_no_node_says(nodes, table):
    assert set(table) - {english for _, english in texts(nodes)} == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_names_and_options_stay(language, table):
    changed = [
        f"{english}\n{there[language]}"
        for english, there in table.items()
        if " " in english and kept(english) != kept(there[language])
    ]
    assert changed == []


def test_a_changed_number_or_option_is_noticed():
    assert kept("At 12.5 frames, see top_k.") == kept("Bei 12,5 Bildern, siehe top_k.")
    assert kept("At 12.5 frames") != kept("Bei 25 Bildern") and kept("see top_k") != kept("siehe oben_k")
    assert kept("happy:1.2 sets it") != kept("froh:1.2 setzt sie")


@pytest.mark.parametrize("emotion", ["angry", "contempt", "disgusted", "fear", "happy", "sad", "surprised"])
def test_the_wheels_emotions_show_the_value_that_texts_use(emotion, table):
    assert all(f"({emotion})" in there for there in table[emotion].values())


def test_no_text_holds_what_the_frontend_takes_for_a_placeholder(table):
    """vue-i18n gives {, }, @ and | a meaning."""
    assert not [text for there in table.values() for text in there.values() if set(text) & set("{}@|")]


def test_comfyui_serves_them(server):
    served = server.get("/i18n")
    for language in LANGUAGES:
        there = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
        assert served[language]["nodeDefs"] == there


def test_the_documents_name_the_languages():
    said = " ".join((ROOT / "docs" / "nodes.md").read_text(encoding="utf-8").split())
    assert f"in {', '.join(LANGUAGES)}." in said
    assert "No native speaker has read the translations" in said
