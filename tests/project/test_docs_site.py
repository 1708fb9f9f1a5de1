"""The documentation as a site: built without a warning, no link in it broken, nothing in it fetched from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from small_problems import ROOT

from inferno_milp.cli.arguments import SUBCOMMANDS

PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))


class Page(HTMLParser):
    """What a page links to, what it loads, and what can be linked to in it."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(given["href"])
        elif tag in ("img", "script", "source", "iframe") and "src" in given:
            self.loads.append(given["src"])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(folder / "trees")]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(folder / "html")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@cache
def page(path: Path) -> Page:
    return Page(path)


def test_every_page_is_there_and_listed(site: Path) -> None:
    assert {f"{name}.html" for name in PAGES} <= {path.name for path in site.iterdir()}
    listed = set(page(site / "index.html").links)
    assert {f"{name}.html" for name in PAGES if name != "index"} <= listed
    readme = (ROOT / "README.md").read_text()
    assert all((ROOT / target).exists() for target in re.findall(r"\]\(((?!http)[^)#]+)", readme))


def test_links(site: Path) -> None:
    """Every link leads to a page that is there, and to a place in it."""
    broken = []
    for path in site.rglob("*.html"):
        for link in page(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                assert parts.scheme in ("https", "http"), link
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in page(target).ids):
                broken.append(f"{path.name}: {link}")
    assert not broken


def test_nothing_is_fetched(site: Path) -> None:
    for path in site.rglob("*.html"):
        for source in page(path).loads:
            parts = urlsplit(source)
            assert not parts.scheme or parts.scheme == "data", f"{path.name} loads {source}"
            if not parts.scheme:
                assert (path.parent / unquote(parts.path)).is_file(), f"{path.name} loads {source}, which is not there"
    for path in site.rglob("*.css"):
        fetched = re.findall(r"(?:@import|url\()\s*['\"]?(https?://[^'\")]+)", path.read_text(encoding="utf-8"))
        assert not fetched, f"{path.name} loads {fetched}"


def test_links_to_elsewhere_are_few_and_secure(site: Path) -> None:
    links = {link for path in site.rglob("*.html") for link in page(path).links if urlsplit(link).netloc}
    assert all(link.startswith("https://") for link in links)
    assert {urlsplit(link).netloc for link in links} <= {"github.com", "www.sphinx-doc.org", "pradyunsg.me"}


def test_public_names_are_documented(site: Path) -> None:
    import inferno_milp as im
    from inferno_milp.report import plots

    ids = page(site / "api.html").ids
    classes = {"Plan": "inferno_milp.plan.Plan", "Problem": "inferno_milp.problem.Problem"}
    errors = {name: f"inferno_milp.errors.{name}" for name in im.__all__ if name.endswith("Error")}
    names = [{**classes, **errors}.get(name, f"inferno_milp.{name}") for name in im.__all__ if name != "__version__"]
    missing = [
        name for name in [*names, *(f"inferno_milp.report.plots.{name}" for name in plots.__all__)] if name not in ids
    ]
    assert not missing


def test_every_subcommand_is_run_in_the_docs() -> None:
    """Console blocks are run by the checks; each subcommand stands in one."""
    text = "\n".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    blocks = re.findall(r"^```console\n(.*?)^```", text, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    commands = re.findall(r"(?:inferno-milp|python -m inferno_milp) (\S+)", "\n".join(lines))
    assert {*SUBCOMMANDS} <= {*commands}
