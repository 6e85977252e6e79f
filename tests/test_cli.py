"""The front of the command line: its version, and the examples in each command's help."""

import shlex

import pytest
from project import ROOT

from dicetalk import __version__, cli

EXAMPLES = [(name, *example) for name in cli.COMMANDS for example in cli._module(name).EXAMPLES]


def printed(capsys, *arguments):
    """What the command line prints before it ends with 0."""
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_the_version_is_printed(capsys):
    assert printed(capsys, "--version") == f"dicetalk {__version__}\n"


@pytest.mark.parametrize("name, what, arguments", EXAMPLES)
def test_an_example_is_taken_and_shown(name, what, arguments, capsys):
    args = cli.parser().parse_args([name, *shlex.split(arguments)])
    assert args.command == name
    shown = printed(capsys, name, "--help").splitlines()
    place = shown.index(f"  # {what}")
    assert shown[place + 1] == f"  python -m dicetalk {name} {arguments}".rstrip()


@pytest.mark.parametrize("columns", ["40", "80", "200"])
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_description_fits_the_terminal(name, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    description = (
        printed(capsys, name, "--help").partition("\n\n")[2].partition("\npositional")[0].partition("\noption")[0]
    )
    assert "".join(description.split()) == "".join(cli._module(name).__doc__.split())
    assert max(map(len, description.splitlines())) <= int(columns)


def test_every_command_has_examples():
    assert {name for name, *_ in EXAMPLES} == set(cli.COMMANDS)


def test_the_emotion_texts_of_examples_are_emotions():
    from dicetalk.emotion.text import read_argument

    texts = [
        text
        for name, _, arguments in EXAMPLES
        if (text := getattr(cli.parser().parse_args([name, *shlex.split(arguments)]), "emotion", None))
    ]
    assert len(texts) >= 4
    for text in texts:
        if not text.startswith("clip:"):
            read_argument(text)


def test_the_page_of_the_command_line_names_every_command_and_every_option_of_generate():
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    tables = "\n".join(line.partition("|")[2].partition("|")[0] for line in page.splitlines() if line.startswith("|"))
    assert [name for name in cli.COMMANDS if f"`{name}`" not in tables] == []
    (commands,) = (action for action in cli.parser()._actions if action.dest == "command")
    explained = page + (ROOT / "docs" / "reference-clips.md").read_text(encoding="utf-8")
    options = [action.option_strings[-1] for action in commands.choices["generate"]._actions]
    assert len(options) > 25 and [option for option in options if option != "--help" and option not in explained] == []
