"""The pages: their links lead somewhere, their lines fit a screen, their words are plain."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "NOTICE")] + sorted(
    (ROOT / "docs").glob("*.md")
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
TARGET = re.compile(r"(?:^|`)make ([a-z0-9-]+)", re.M)
MODULE = re.compile(r"python3? -m ([a-z_]\S*?)(?=[\s`])")
INSTALLED = "fun_audio_chat_client"
WIDTH, README_LINES = 120, 165
RIDDLES = re.compile(r"\b(no|some|any|every)body\b|\bwhoever\b", re.I)


def anchors(page):
    """Names that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for link in LINK.findall(page.read_text("utf-8")):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_fit_and_words_are_plain(page):
    text = page.read_text("utf-8")
    assert not RIDDLES.findall(text)
    wide = [line for line in text.splitlines() if len(line) > WIDTH]
    # The table of `make faults` is written by a program.
    assert not wide or (page.name == "failures.md" and all(line.startswith("|") for line in wide)), wide


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_commands_exist(page):
    text = page.read_text("utf-8")
    rules = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    assert set(TARGET.findall(text)) <= rules
    for module in set(MODULE.findall(text)) - {INSTALLED}:
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= README_LINES
