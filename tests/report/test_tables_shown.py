"""Tables are whole wherever they are shown: on a terminal of 80 columns, on the page, in the report, in print."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from running_service import RunningService
from small_problems import make_problem, problem_data

import inferno_milp as im
from inferno_milp.report import plan_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; .ci/run installs it")
LONG = "organisation-of-some-length/model-of-a-long-name-v3.1-70B-Instruct-FP8"
DECISION = ("repl.", "batch", "cents/h", "TTFT ms", "p95", "ITL ms")


def renamed(model: str, service_class: str) -> dict[str, Any]:
    """The tiny problem with other names, and a server that nothing serves."""
    data = problem_data()
    for profile in data["profiles"]:
        profile["model"] = model
    targets = [{model: {"ttft_ms": 1000.0, "itl_ms": 30.0}}, {model: {"itl_ms": 0.5}}]
    names = [service_class, f"hopeless-{service_class}"]
    data["service_classes"] = [{"name": n, "priority": 1, "targets": t} for n, t in zip(names, targets, strict=True)]
    data["servers"] = [{**data["servers"][0], "service_class": name, "model": model} for name in names]
    return data


def shown(plan: im.Plan, width: int) -> list[str]:
    console = Console(width=width, force_terminal=True, file=io.StringIO(), color_system=None, highlight=False)
    console.print(*plan_report(plan, console), sep="\n")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


class TestATerminal:
    @pytest.mark.parametrize("names", [("m", "gold"), (LONG, "interactive-customers")], ids=["short", "long"])
    @pytest.mark.parametrize("width", [80, 100, 200])
    def test_the_decision_is_to_be_seen(self, names: tuple[str, str], width: int) -> None:
        problem = im.Problem.model_validate(renamed(*names))
        plan = im.optimize(problem)
        lines = shown(plan, width)
        (a,) = plan.servers[0].allocations
        head = next(line for line in lines if "repl." in line)
        assert all(column in head for column in DECISION)
        table = "\n".join(lines[: lines.index("")])
        for number in (a.replicas, a.batch_size, f"{a.cost_per_hour:.6g}"):
            assert re.search(rf"(?<![\w.]){re.escape(str(number))}(?![\w.])", table), number
        assert max(map(len, lines)) <= width
        names_shown = re.sub(r"[^\w/-]", "", "".join(line[: head.index("repl.")] for line in lines))
        assert len(names_shown) > len(names[0])
        if width == 200 and names[0] == "m":
            assert all(column in head for column in ("devices", "load/min", "util."))

    def test_how_it_comes_about_goes_first(self) -> None:
        plan = im.optimize(make_problem())
        texts = {width: "".join(shown(plan, width)) for width in (80, 60, 40)}
        left_out = {width: re.findall(r"left out, [^:]*: (.*?)\)", text)[0] for width, text in texts.items()}
        assert left_out[80] == "devices, util., load/min"
        assert left_out[40].startswith("devices, util.,")
        assert left_out[40].endswith("p95, batch")


TABLES = """() => [...document.querySelectorAll('table')].filter(t => t.offsetWidth).map(t => {
  const holder = t.closest('.wide');
  return {
    what: (t.closest('section')?.id || '') + ': ' + t.innerText.slice(0, 40),
    fits: holder !== null && holder.scrollWidth <= holder.clientWidth,
    scrolls: holder !== null && ['auto', 'scroll'].includes(getComputedStyle(holder).overflowX)
      && holder.offsetHeight > holder.clientHeight,
    right: t.getBoundingClientRect().right,
  };
})"""


def check_tables(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function("width => innerWidth === width", arg=width)
    tables = page.evaluate(TABLES)
    assert tables
    for table in tables:
        assert table["fits"] or (table["scrolls"] and width < 1200), (width, table)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu"],
            ignore_default_args=["--hide-scrollbars"],
        )
        yield running
        running.close()


@in_a_browser
def test_on_the_page(browser: Browser, tmp_path: Path) -> None:
    with RunningService(tmp_path, "--workers", "1", "--grace", "1") as running:
        page = browser.new_page(base_url=running.url)
        page.set_default_timeout(120_000)
        page.goto("/")
        page.fill("#problem", yaml.safe_dump(renamed(LONG, "interactive-customers"), sort_keys=False))
        page.click("#plan")
        page.wait_for_selector("#allocations")
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        for width in (1600, 1280, 800, 400):
            check_tables(page, width)
        page.close()


@in_a_browser
def test_in_the_report(browser: Browser, tmp_path: Path) -> None:
    from inferno_milp.report.html import report_html

    (tmp_path / "report.html").write_text(
        report_html(im.Problem.model_validate(renamed(LONG, "customers")), requests=1000)
    )
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    for width in (1600, 1280, 800, 400):
        check_tables(page, width)
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 900})  # A4 less its margins
    assert all(table["right"] <= 689 for table in page.evaluate(TABLES))
    page.close()
