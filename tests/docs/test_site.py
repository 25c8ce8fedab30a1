"""The documentation site builds without a warning, and works from a folder: no server, nothing from elsewhere."""

import os
import re
import subprocess
import sys

import pytest

from browser import CHROMIUM, Browser
from places import ROOT
from site_pages import REPOSITORY, ROOT_PAGES, site_links

_LOADED = re.compile(
    r"<(?:script|img|iframe)\b[^>]*\bsrc=\"?([^\"\s>]+)"
    r"|<link\b(?=[^>]*\brel=\"?(?:stylesheet|icon|preconnect|preload))[^>]*\bhref=\"?([^\"\s>]+)"
)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    sources = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    assert len(pages) == len(sources) + len(ROOT_PAGES) + 1  # and the page for what is not found
    for page in pages:
        loaded = [one or other for one, other in _LOADED.findall(page.read_text())]
        assert loaded
        assert [target for target in loaded if "//" in target] == []


def test_every_list_and_table_is_shown_as_one(site):
    flowed = re.compile(r"<p>(?:(?:(?!</p>).)*\n)?(?:\d+\. |[-*] |\| ).*", re.DOTALL)
    for page in site.rglob("*.html"):
        paragraphs = re.findall(r"<p>.*?</p>", page.read_text(), flags=re.DOTALL)
        assert [one[:80] for one in paragraphs if flowed.match(one)] == [], page.name


def test_the_api_has_every_method_and_the_loop(site):
    text = (site / "reference" / "api" / "methods.html").read_text()
    assert 'id="hilum.common.methods.base.SSLMethod"' in text
    for module in (ROOT / "common" / "hilum" / "common" / "methods").rglob("[a-z]*.py"):
        name = ".".join(module.relative_to(ROOT / "common").with_suffix("").parts)
        assert f'id="{name}"' in text
    assert (
        'id="hilum.client.pretraining.loop.train_round"'
        in (site / "reference" / "api" / "training.html").read_text()
    )


def test_links_of_the_repository_become_links_of_the_site():
    def one(link, page):
        return site_links(f"[x]({link})", page).removeprefix("[x](").removesuffix(")")

    assert one("../../SECURITY.md", "explanation/design.md") == "../security.md"
    assert one("docs/how-to/deploy.md#the-server", "overview.md") == "how-to/deploy.md#the-server"
    assert one("docs/images/report.png", "overview.md") == "images/report.png"
    assert one("results.md", "reference/what-leaves.md") == "results.md"
    assert one("#codes", "reference/results.md") == "#codes"
    assert one("https://flower.ai", "overview.md") == "https://flower.ai"
    assert one("LICENSE", "overview.md") == f"{REPOSITORY}/blob/main/LICENSE"
    assert one("../../examples", "how-to/deploy.md") == f"{REPOSITORY}/tree/main/examples"
    assert one("../nowhere.md", "how-to/deploy.md") == "../nowhere.md"


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: needed to look at the pages")
@pytest.mark.parametrize("width", [1280, 420])
def test_pages_fit_their_window_and_the_search_works_from_a_file(site, tmp_path, width):
    with Browser(tmp_path / "profile") as browser:
        for name in ("overview", "log", "reference/commands", "reference/dicom", "reference/api/methods"):
            browser.open(site / f"{name}.html", width)
            assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
            assert browser.evaluate("[...document.images].every(image => image.naturalWidth > 0)"), name
            assert browser.evaluate("document.querySelectorAll('.md-content p, .md-content li').length > 3")
            assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.asked.values()), name
        browser.open(site / "index.html", width)
        first = browser.evaluate(
            """new Promise(async resolve => {
                const wait = () => new Promise(next => setTimeout(next, 100));
                document.querySelector("#__search").click();
                const input = document.querySelector(".md-search__input");
                for (let tries = 0; tries < 200; tries++) {
                    input.focus();
                    input.value = "quarantine";
                    input.dispatchEvent(new Event("keyup", {bubbles: true}));
                    await wait();
                    const found = document.querySelector(".md-search-result__link");
                    if (found) return resolve(found.getAttribute("href"));
                }
                resolve("nothing");
            })"""
        )
        assert "quarantine" in first
        assert all(url.startswith(("file:", "data:", "blob:", "about:")) for url in browser.asked.values())
