"""The page, in a real browser: planning, errors at their line, other figures, files, links, and everybody's ways in."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from running_service import RunningService
from small_problems import ROOT, as_system_data, problem_data

import inferno_milp as im

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; .ci/run installs it")
LIMITED = ROOT / "instances" / "limited.yaml"
WAIT_MS = 600_000
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("page"), "--grace", "1") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture
def context(browser: Browser, service: RunningService) -> Iterator[BrowserContext]:
    made = browser.new_context(base_url=service.url, permissions=["clipboard-read", "clipboard-write"])
    made.set_default_timeout(WAIT_MS)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, service: RunningService) -> Iterator[Page]:
    """A page that must not fail in silence, nor fetch anything from elsewhere."""
    opened = context.new_page()
    failed: list[str] = []
    opened.on("pageerror", lambda error: failed.append(str(error)))
    opened.on(
        "request", lambda request: request.url.startswith((service.url, "data:", "blob:")) or failed.append(request.url)
    )
    opened.on("dialog", lambda dialog: dialog.accept())
    opened.goto("/")
    yield opened
    assert not failed


def plan(page: Page, text: str | None = None) -> None:
    if text is not None:
        page.fill("#problem", text)
    page.click("#plan")
    expect(page.locator("#plan-heading")).to_be_focused(timeout=WAIT_MS)


def text_of(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False)


class TestPlanning:
    def test_an_example(self, page: Page) -> None:
        page.select_option("#example", "limited")
        expect(page.locator("#problem")).to_have_value(LIMITED.read_text(encoding="utf-8"))
        plan(page)
        expect(page.locator("#cost")).to_have_text("26,300.5")
        expect(page.locator("#allocations tbody tr")).to_have_count(27)
        expect(page.get_by_text("Proven: no plan with one accelerator per server costs less.")).to_be_visible()
        row = page.locator("#devices tbody tr", has_text="MI300X")
        expect(row).to_contain_text("100%")
        assert re.search(r"/p/[\w-]{20,}$", page.url)
        assert page.title() == "Plan of limited: 26,300.5 cents per hour"

    def test_all_examples_are_there(self, page: Page) -> None:
        names = page.locator("#example option").evaluate_all("options => options.map(o => o.value)")
        assert set(names) - {""} == {
            "smallest", *(path.stem for path in (ROOT / "instances").glob("*.yaml"))
        }  # fmt: skip

    def test_every_example_is_a_problem(self, page: Page) -> None:
        for name in page.locator("#example option").evaluate_all("options => options.map(o => o.value)")[1:]:
            page.select_option("#example", name)
            page.click("#check")
            expect(page.locator("#status")).to_contain_text("no fault: ")

    def test_other_figures(self, page: Page) -> None:
        page.select_option("#example", "limited")
        expect(page.locator("#problem")).not_to_have_value("")
        plan(page)
        page.get_by_label("devices of MI300X").fill("150")
        expect(page.locator("#changed")).to_have_text("1 figure changed.")
        page.get_by_role("button", name="Reset").click()
        expect(page.locator("#changed")).to_have_text("Nothing is changed yet.")
        page.get_by_label("devices of MI300X").fill("145")
        page.get_by_role("button", name="Plan again").click()
        expect(page.locator("#difference")).to_contain_text("99 cents per hour less: 26,201.5 instead of 26,300.5")
        page.get_by_label("All traffic ×").fill("2")
        page.get_by_role("button", name="Plan again").click()
        expect(page.locator("#difference")).to_contain_text("No longer served in full:")
        expect(page.locator("#difference")).not_to_contain_text("less")
        expect(page.locator("#differs")).to_contain_text("capacity.MI300X=145")
        expect(page.locator("#differs")).to_contain_text("servers.Free-mixtral_8_7b.load.rate_per_min=960")
        settings = ["servers.*.load.rate_per_min*=2", "capacity.MI300X=145"]
        ours = im.optimize(im.with_settings(im.read_problem(LIMITED), settings))
        expect(page.locator("#cost")).to_have_text(f"{ours.total_cost_per_hour:,.2f}".rstrip("0").rstrip("."))
        page.get_by_role("button", name="Write them into the text").click()
        expect(page.locator("#problem")).to_have_value(re.compile("MI300X: 145"))
        taken = im.read_problem_text(page.input_value("#problem"))
        assert taken.servers[0].load is not None
        assert taken.servers[0].load.rate_per_min == 240

    def test_promises_and_names_with_dots(self, page: Page) -> None:
        data = problem_data()
        data["profiles"] = [{**profile, "model": "llama-3.1"} for profile in data["profiles"]]
        data["service_classes"][0]["targets"] = {"llama-3.1": {"ttft_ms": {"p95": 1000.0}, "itl_ms": 30.0}}
        data["servers"][0]["model"] = "llama-3.1"
        plan(page, text_of(data))
        page.get_by_text("Promises", exact=True).click()
        page.get_by_label("ITL").fill("9")
        page.get_by_role("button", name="Plan again").click()
        expect(page.locator("#difference")).to_be_visible()
        changed = im.with_settings(
            im.read_problem_text(text_of(data)), {"service_classes.gold.targets.llama-3.1.itl_ms": 9}
        )
        cost = im.optimize(changed).total_cost_per_hour
        expect(page.locator("#cost")).to_have_text(f"{cost:g}")

    def test_what_failed_or_was_cancelled_is_not_in_force(self, page: Page) -> None:
        """A figure that was refused, an emptied field, and a text that was edited change nothing of the plan shown."""
        plan(page, text_of(problem_data()))
        cost = page.inner_text("#cost")
        page.get_by_text("Promises", exact=True).click()
        page.get_by_label("TTFT of").fill("0")
        page.get_by_role("button", name="Plan again").click()
        expect(page.get_by_label("TTFT of")).to_be_focused()
        page.get_by_label("TTFT of").fill("2000")
        page.get_by_label("devices of B").fill("")
        page.get_by_role("button", name="Plan again").click()
        expect(page.get_by_label("devices of B")).to_be_focused()
        page.get_by_role("button", name="Reset").click()
        page.get_by_label("servers").or_(page.get_by_label("rate of gold-m")).first.fill("1e13")
        page.get_by_role("button", name="Plan again").click()
        expect(page.get_by_label("rate of gold-m")).to_have_attribute("aria-invalid", "true")
        page.get_by_role("button", name="Reset").click()
        page.fill("#problem", text_of(problem_data(capacity={"B": 20})))
        expect(page.locator("#stale")).to_be_visible()
        page.get_by_role("button", name="Why is it so?").click()
        expect(page.locator("#why-here details")).to_have_count(1)
        expect(page.locator("#why-here summary")).to_contain_text("gold-m: A, 10 cents/h")
        page.get_by_role("button", name="Plan again").click()
        expect(page.locator("#difference")).to_contain_text("The cost stays at")
        expect(page.locator("#cost")).to_have_text(cost)
        page.fill("#problem", text_of(problem_data(capacity={"A": -1})))
        page.click("#plan")
        expect(page.locator("#faults")).to_be_focused()  # and not the figure of that name in the plan of another text

    def test_back_to_the_plan_before(self, page: Page) -> None:
        plan(page, text_of(problem_data()))
        first = page.inner_text("#cost")
        page.get_by_label("All traffic ×").fill("5")
        page.get_by_role("button", name="Plan again").click()
        expect(page.locator("#difference")).to_be_visible()
        page.go_back()
        expect(page.locator("#cost")).to_have_text(first)

    def test_cancelled(self, page: Page, service: RunningService) -> None:
        from small_problems import slow_problem

        page.fill("#problem", json.dumps(slow_problem()))
        page.click("#plan")
        expect(page.locator("#status")).to_have_text(re.compile("solving|analysing|working"))
        page.click("#cancel")
        expect(page.locator("#status")).to_have_text("cancelled")
        assert service.client.get("/v1/jobs").json()[0]["status"] == "cancelled"
        expect(page.locator("#plan")).to_be_enabled()


class TestFaults:
    def test_at_their_line(self, page: Page) -> None:
        text = (
            LIMITED.read_text(encoding="utf-8").replace("H100: 64", "H10: 64").replace("model: llama_70b", "modl: x", 1)
        )
        page.fill("#problem", text)
        page.click("#plan")
        expect(page.locator("#faults li")).to_have_count(3)
        expect(page.locator("#faults")).to_be_focused()
        fault = page.get_by_role("button", name="line 9: capacity.H10")
        expect(fault).to_contain_text("did you mean 'H100'?")
        marked = page.locator("#lines b").evaluate_all(
            "lines => lines.map(l => parseInt(l.textContent.replace('▸', '')))"
        )
        assert marked[0] == 9
        fault.click()
        selected = page.evaluate(
            "() => { const { value, selectionStart, selectionEnd } = document.getElementById('problem');"
            " return value.slice(selectionStart, selectionEnd); }"
        )
        assert selected.startswith("capacity: {")
        page.fill("#problem", LIMITED.read_text(encoding="utf-8"))
        page.click("#check")
        expect(page.locator("#status")).to_contain_text("no fault: 27 servers of 9 models")
        expect(page.locator("#faults li")).to_have_count(0)

    def test_nothing_and_nonsense(self, page: Page) -> None:
        page.click("#plan")
        expect(page.locator("#faults li")).to_have_count(1)
        page.fill("#problem", "{")
        page.click("#plan")
        expect(page.locator("#faults li")).to_contain_text("not YAML")

    def test_names_are_text(self, page: Page) -> None:
        data = problem_data(name="<img src=x onerror=document.title='stolen'>", currency="<b>$</b>")
        data["servers"][0]["name"] = "\"><script>document.title='stolen'</script>"
        plan(page, text_of(data))
        page.get_by_role("button", name="Draw").click()
        expect(page.locator("#drawn figure")).to_have_count(3)
        page.get_by_role("button", name="Why is it so?").click()
        expect(page.locator("#why-here details")).to_have_count(1)
        assert page.title() != "stolen"
        assert page.locator("#result script, #result figure img[src='x']").count() == 0


class TestFiles:
    def test_a_problem_with_what_it_includes(self, page: Page, tmp_path: Path) -> None:
        data = problem_data()
        (tmp_path / "parts.yaml").write_text(text_of({"profiles": data.pop("profiles")}))
        (tmp_path / "mine.yaml").write_text(text_of({**data, "include": "parts.yaml"}))
        page.set_input_files("#upload", [tmp_path / "parts.yaml", tmp_path / "mine.yaml"])
        expect(page.locator("#also")).to_have_text("with parts.yaml")
        plan(page)
        expect(page.locator("#cost")).to_have_text(
            f"{im.optimize(im.Problem.model_validate(problem_data())).total_cost_per_hour:g}"
        )

    def test_the_six_files_of_llm_inferno(self, page: Page, tmp_path: Path) -> None:
        names = {"acceleratorData": "accelerator", "modelData": "model", "serviceClassData": "serviceclass",
                 "serverData": "server", "capacityData": "capacity"}  # fmt: skip
        paths = []
        for part, data in as_system_data(im.read_problem(LIMITED)).items():
            paths.append(tmp_path / f"{names[part]}-data.json")
            paths[-1].write_text(json.dumps(data))
        page.set_input_files("#upload", paths)
        expect(page.locator("#problem")).to_have_value(re.compile("acceleratorData"))
        plan(page)
        expect(page.locator("#cost")).to_have_text("26,300.5")

    def test_downloads(self, page: Page) -> None:
        plan(page, text_of(problem_data()))
        found = {}
        for name in ("Problem, YAML", "Plan, JSON", "Plan, CSV"):
            with page.expect_download() as download:
                page.get_by_role("button", name=name).click()
            found[download.value.suggested_filename] = Path(download.value.path()).read_text(encoding="utf-8")
        assert im.read_problem_text(found["problem.yaml"]) == im.Problem.model_validate(problem_data())
        ours = im.Plan.from_dict(json.loads(found["plan.json"]))
        assert found["plan.csv"] == ours.to_frame().to_csv(index=False)

    def test_a_link_to_share(self, page: Page, browser: Browser, service: RunningService) -> None:
        plan(page, text_of(problem_data()))
        page.get_by_role("button", name="Copy link").click()
        expect(page.locator("#status")).to_have_text("the link is in the clipboard")
        link = page.evaluate("() => navigator.clipboard.readText()")
        other = browser.new_page()
        other.goto(link)
        expect(other.locator("#cost")).to_have_text(page.inner_text("#cost"))
        expect(other.locator("#problem")).to_have_value(text_of(problem_data()))
        other.goto(f"{service.url}/p/nothing")
        expect(other.locator("#status")).to_contain_text("the link is wrong")
        other.close()


def test_the_api_document(page: Page) -> None:
    """It is drawn without anything from elsewhere, and its examples can be tried out."""
    page.get_by_role("link", name="API").click()
    page.locator("#operations-planning-planning-optimize .opblock-summary").click()
    expect(page.get_by_text("Find the plan of least cost, with its proof.")).to_be_visible()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator("#operations-planning-planning-optimize .live-responses-table")).to_contain_text('"optimal"')


class TestUnderstanding:
    def test_curves_why_and_prices(self, page: Page) -> None:
        page.select_option("#example", "small")
        expect(page.locator("#problem")).not_to_have_value("")
        plan(page)
        page.get_by_role("button", name="Draw").click()
        expect(page.locator("#drawn figure img")).to_have_count(3)
        assert page.locator("#drawn img").evaluate_all("images => images.every(i => i.complete && i.naturalWidth > 0)")
        expect(page.locator("#drawn")).to_contain_text("highest rate")
        page.get_by_role("button", name="Why is it so?").click()
        expect(page.locator("#why-here")).to_be_focused()
        expect(page.locator("#why-here details")).to_have_count(
            len(im.read_problem(ROOT / "instances/small.yaml").servers)
        )
        page.get_by_role("button", name="What is a device worth?").click()
        expect(page.locator("#prices-here")).to_contain_text("one more saves")
        page.get_by_role("button", name="Check by simulation").click()
        expect(page.locator("#simulate-here")).to_contain_text("simulated requests", timeout=WAIT_MS)


class TestEverybodysWaysIn:
    @pytest.mark.parametrize("width", [360, 1280])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_nothing_hinders(self, browser: Browser, service: RunningService, width: int, scheme: Any) -> None:
        """Axe finds nothing, and nothing scrolls sideways: with faults, and with all parts of a plan open."""
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, base_url=service.url)
        page.set_default_timeout(WAIT_MS)
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto("/")
        page.fill("#problem", "servers: 3")
        page.click("#plan")
        expect(page.locator("#faults li")).not_to_have_count(0)
        check(page)
        page.select_option("#example", "small")
        expect(page.locator("#problem")).to_have_value(re.compile("name"))
        plan(page)
        page.get_by_role("button", name="Draw").click()
        expect(page.locator("#drawn figure img")).to_have_count(3)
        page.get_by_role("button", name="Why is it so?").click()
        expect(page.locator("#why-here details")).not_to_have_count(0)
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        check(page)
        page.close()

    def test_by_keyboard_alone(self, page: Page) -> None:
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the problem")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.insert_text(text_of(problem_data()))
        page.keyboard.press("Control+Enter")
        expect(page.locator("#plan-heading")).to_be_focused(timeout=WAIT_MS)
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "all-rates":
                break
        page.keyboard.press("Control+a")
        page.keyboard.type("3")
        page.keyboard.press("Enter")
        expect(page.locator("#difference")).to_be_visible()

    def test_a_token(self, browser: Browser, tmp_path: Path) -> None:
        with RunningService(tmp_path, environment={"INFERNO_TOKEN": "secret"}, token="secret") as running:
            page = browser.new_page(base_url=running.url)
            page.goto("/")
            page.fill("#problem", text_of(problem_data()))
            page.click("#plan")
            expect(page.locator("#token")).to_be_focused()
            page.fill("#token", "secret")
            page.keyboard.press("Enter")
            plan(page)
            page.reload()
            expect(page.locator("#plan-heading")).to_be_visible(timeout=WAIT_MS)
            page.close()


def check(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
