"""The documents as a whole: their links lead somewhere, and the files that they name exist."""

import re
from urllib.parse import unquote

import pytest
from project import ROOT

OUTSIDE = {".git", ".cache", "node_modules", ".pytest_cache", *(path.parent.name for path in ROOT.glob("*/pyvenv.cfg"))}
FOLDERS = ("docs", "tests", "dicetalk", "nodes", "web", "example_workflows", "subgraphs", "api", "demo", ".github")
LINK = re.compile(r"\[(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*\]\(([^()\s]+)\)")
PAGES = sorted(
    path for path in ROOT.rglob("*.md") if not OUTSIDE & set(path.relative_to(ROOT).parts) and path.is_file()
)


def prose(text):
    """A page without its blocks of code."""
    return re.sub(r"^( *)(```|~~~).*?^ *\2[^\n]*$", "", text, flags=re.M | re.S)


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#{1,6} +(.+?)[ #]*$", prose(text), re.M):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(next(each for number in range(99) if (each := f"{slug}-{number}" if number else slug) not in found))
    return found


def broken(page, text):
    """What a page links to and is not there, one line each."""
    found = []
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(text))):
        if re.match(r"[a-z][a-z+.-]*:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        if target != page and not target.exists():
            found.append(f"{link}: there is no such file")
        elif not target.is_relative_to(ROOT):
            found.append(f"{link}: outside of the project")
        elif anchor and anchor not in anchors(text if target == page else target.read_text(encoding="utf-8")):
            found.append(f"{link}: the page has no such heading")
    for name in re.findall(rf"`((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]+)`", prose(text)):
        if not (ROOT / name).exists():
            found.append(f"{name}: there is no such file")
    return found


def test_the_pages_are_found():
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"} <= {path.name for path in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_exist(page):
    assert broken(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_the_readme_leads_to_every_page_of_docs(page):
    assert f"](docs/{page.name})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_extra_is_explained():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(r"^(\w+) = \[", project.split("[project.optional-dependencies]")[1].split("\n[")[0], re.M)
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == set(extras) - {"fuzz"}  # for tests alone


@pytest.mark.parametrize(
    "text, fault",
    [
        ("[a](docs/none.md)", "docs/none.md: there is no such file"),
        ("![a](docs/images/none.png)", "docs/images/none.png: there is no such file"),
        ("[![a](docs/images/none.png)](README.md)", None),
        ("[a](#none)", "#none: the page has no such heading"),
        ("# One, two\n[a](#one-two)", None),
        ("# One\n# One\n[a](#one-1)", None),
        ("```\n# One\n```\n[a](#one)", "#one: the page has no such heading"),
        ("[a](README.md#nowhere)", "README.md#nowhere: the page has no such heading"),
        ("[a](../elsewhere.md)", "../elsewhere.md: there is no such file"),
        ("`tests/none.py`", "tests/none.py: there is no such file"),
        ("`[a](none.md)` and [b](https://example.com)", None),
    ],
)
def test_a_broken_link_is_noticed(text, fault):
    assert broken(ROOT / "page.md", text) == ([fault] if fault else [])
