"""The gallery of real images in a real browser: what a person sees, and that nothing is asked of anyone."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a `chromium` on the PATH"),
]

IMAGES = "[...document.images]"
WIDTHS = {"desk": 1280, "telephone": 420}


@pytest.fixture
def browser(tmp_path):
    with Browser(tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
def gallery(run_hilum, shared_data):
    """Index an archive and give the first page of its gallery, and what the status counts."""

    def make(*parts, folder=None):
        archive = folder or shared_data.joinpath("data", "dicom", *parts)
        done = run_hilum("site", "index", archive, "--json", timeout_s=550)
        page = run_hilum("site", "browse", "--out", "gallery", "--json")
        assert page.returncode == 0, page.stderr
        return json.loads(page.stdout)["page"], json.loads(done.stdout)

    return make


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_picture_is_shown_and_nothing_is_fetched(browser, gallery, tmp_path, width, dark):
    page, found = gallery("mr_ge_siemens_nih")
    assert found["volumes"] > 0
    browser.open(tmp_path / page, width, dark=dark)
    assert browser.evaluate(f"{IMAGES}.length") >= 3 * found["volumes"]
    assert browser.evaluate(f"{IMAGES}.filter(image => !image.complete || !image.naturalWidth).length") == 0
    # No picture is drawn out of shape, or wider than its frame.
    width_px = "image.naturalWidth * image.height / image.naturalHeight"
    assert browser.evaluate(f"{IMAGES}.filter(image => Math.abs(image.width - {width_px}) > 2).length") == 0
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    others = [
        address for address in browser.asked.values() if not address.startswith("data:image/jpeg;base64,")
    ]
    assert others == [(tmp_path / page).as_uri()]
    shown = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("L"))
    assert shown.std() > 20


def test_the_page_may_neither_run_a_script_nor_ask_another_machine(browser, gallery, tmp_path):
    page, _ = gallery("mr_enhanced")
    text = (tmp_path / page).read_text()
    elsewhere = "https://zzphi.example"
    inside = f'<script>document.title = "ran"</script><img src="{elsewhere}/x">'
    (tmp_path / page).write_text(text.replace("</main>", f"{inside}</main>"))
    browser.open(tmp_path / page, 1280)
    assert browser.evaluate("document.title") == "Indexed images · Hilum"
    abroad = [address for address in browser.asked.values() if address.startswith("http")]
    assert abroad == browser.forbidden == [f"{elsewhere}/x"]


def test_the_table_leads_to_each_family(browser, gallery, tmp_path):
    page, _ = gallery()
    browser.open(tmp_path / page, 420)
    families = browser.evaluate("[...document.querySelectorAll('td a')].map(link => link.hash.slice(1))")
    assert len(families) > 2
    for family in families:
        browser.evaluate(f"document.querySelector('td a[href$=\"#{family}\"]').click()")
        top = browser.evaluate(f"document.getElementById({family!r}).getBoundingClientRect().top")
        notice = browser.evaluate("document.querySelector('.keep').getBoundingClientRect().bottom")
        assert notice <= top < 900


def test_an_archive_of_which_nothing_is_taken_says_so_and_why(browser, gallery, tmp_path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "ZZPHI.txt").write_text("ZZPHI")
    page, found = gallery(folder=tmp_path / "archive")
    assert found["instances"] == 0
    browser.open(tmp_path / page, 420)
    text = browser.evaluate("document.body.innerText")
    assert "No image was taken in." in text
    assert "not a DICOM file" in text
    assert "ZZPHI" not in text
    assert browser.evaluate("document.images.length") == 0
