"""The picture of the page in docs/service.md: `python -m benchmarks.page_picture [--write docs/pictures/page.png]`."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.service import start


def main() -> None:
    """Plan an example in a browser, and keep what is seen of the plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, default=Path("docs/pictures/page.png"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        service, url = start(Path(folder))
        try:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1180, "height": 1180})
            page.goto(url)
            page.select_option("#example", "small")
            page.wait_for_function("document.getElementById('problem').value.length > 100")
            page.evaluate("document.getElementById('problem').rows = 9")
            page.click("#plan")
            page.wait_for_selector("#plan-heading")
            page.get_by_label("devices of H100").fill("6")
            page.evaluate("scrollTo(0, 0)")
            arguments.write.parent.mkdir(exist_ok=True)
            page.screenshot(path=arguments.write)
            browser.close()
        finally:
            service.terminate()
            service.wait(timeout=60)


if __name__ == "__main__":
    main()
