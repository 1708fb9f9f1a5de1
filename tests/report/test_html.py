"""The page: whole, self-contained, safe, and whole in a real browser and in print."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from small_problems import make_problem, problem_data, with_server

import inferno_milp as im
from inferno_milp.report.html import REPORT_STAGES, report_html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DATE = datetime.date(2026, 1, 2)


class Page(HTMLParser):
    """What a page refers to, and whether its tags are closed."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.sources += [given[name] or "" for name in ("src", "srcset") if name in given]
        if tag in ("a", "link"):
            self.links.append(given.get("href") or "")
        if given.get("id"):
            self.ids.add(str(given["id"]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def limited() -> str:
    problem = im.read_problem(Path(__file__).parent.parent.parent / "instances" / "limited.yaml")
    return report_html(problem, requests=1000, made=DATE)


def test_self_contained(limited: str) -> None:
    page = Page(limited)
    assert not page.open
    assert len(page.sources) == 12
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"@import|url\(|<script|<iframe", limited)


def test_what_it_says(limited: str) -> None:
    text = " ".join(re.sub(r"<style.*?</style>|<[^>]+>", " ", limited, flags=re.S).split())
    assert "26,300.5 cents per hour" in text
    assert "27 of 27 servers served in full" in text
    assert "Proven: no plan with one accelerator per server costs less." in text
    assert "Premium-llama_70b 2xMI300X 11 22 6 1,430" in text
    assert "MI300X 144 144 99 135 277.59" in text
    assert "2026-01-02" in text
    assert "simulated request by request" in text


def test_an_infeasible_one(instances: Path) -> None:
    page = report_html(im.read_problem(instances / "infeasible.yaml"), requests=1000, made=DATE)
    assert "The cheapest devices to add" in page
    assert "3 A100" in page
    assert "busy-chat-8b cannot be served in full with 2 devices of A100" in page
    assert not Page(page).open


def test_too_few_devices() -> None:
    """Nothing is said to be free of charge that is not."""
    data = problem_data()
    servers = [{**data["servers"][0], "name": f"s{i}"} for i in range(2)]
    problem = make_problem(capacity={"B": 1}, servers=servers)
    page = report_html(problem, requests=1000, made=DATE)
    assert "changes nothing" not in page
    assert "promises of those served, simulated" in page
    assert "What more or less load costs" in page
    assert "there is only one plan" not in page
    assert not Page(page).open


def test_what_is_proven() -> None:
    problem = im.read_problem(Path(__file__).parent.parent.parent / "instances" / "limited.yaml")
    plan = im.optimize(problem, gap=0.2)
    assert plan.gap is not None
    page = report_html(problem, plan=plan, requests=1000, made=DATE)
    assert f"Proven: no plan with one accelerator per server costs less by more than {100 * plan.gap:.2g} %." in page


def test_names_are_text() -> None:
    data = problem_data(name="<script>alert(1)</script>", currency="$")
    data["service_classes"][0]["name"] = data["servers"][0]["service_class"] = "a$^$b"
    data["servers"][0]["name"] = '"><img src=x onerror=alert(1)>'
    page = report_html(im.Problem.model_validate(data), requests=1000, made=DATE)
    assert "<script" not in page
    assert "<img src=x" not in page
    assert not Page(page).open


def test_a_server_without_load_and_stages() -> None:
    stages: list[str] = []
    page = report_html(with_server(load=None, min_replicas=1), made=DATE, on_stage=stages.append)
    assert tuple(stages) == REPORT_STAGES
    assert "no server has a time to first token that could be shorter" in page


def test_mixed_with_today(instances: Path) -> None:
    server = {**problem_data()["servers"][0], "current": {"accelerator": "B", "replicas": 2}}
    problem = make_problem(servers=[server], options={"law": "inferno", "assignment": "mixed"})
    page = report_html(problem, requests=1000, made=DATE)
    assert "What changes from today" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; .ci/run installs it")
class TestInABrowser:
    def chromium(self, folder: Path, *arguments: str) -> str:
        command = [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder / 'profile'}", *arguments,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    @pytest.mark.parametrize("width", [1200, 500])
    def test_nothing_is_cut_or_missing(self, limited: str, tmp_path: Path, width: int) -> None:
        """No figure fails to load, none is wider than the window, and the page does not scroll sideways."""
        measure = """<script>document.title = JSON.stringify([innerWidth, document.documentElement.scrollWidth,
          [...document.images].filter(i => !i.complete || !i.naturalWidth || i.width > innerWidth).length])</script>"""
        path = tmp_path / "page.html"
        path.write_text(limited.replace("</body>", f"{measure}</body>"), encoding="utf-8")
        dom = self.chromium(tmp_path, f"--window-size={width},1500", "--dump-dom", path.as_uri())
        found = re.search(r"<title>\[(\d+),(\d+),(\d+)\]</title>", dom)
        assert found, dom[:300]
        window, scrolled, broken = map(int, found.groups())
        assert scrolled <= window
        assert broken == 0

    def test_print(self, limited: str, tmp_path: Path) -> None:
        path, pdf = tmp_path / "page.html", tmp_path / "page.pdf"
        path.write_text(limited, encoding="utf-8")
        self.chromium(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", path.as_uri())
        pages = len(re.findall(rb"/Type\s*/Page[^s]", pdf.read_bytes()))
        assert 4 <= pages <= 9
