"""report.html in a real browser, from the disk, on a desktop and on a phone."""

from __future__ import annotations

import itertools
import shutil

import pytest

from tests.reporting.made_runs import write_sweep
from tfamp import report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="needs Debian's packages chromium and chromium-driver",
    ),
]
WIDTHS = {"desktop": 1280, "phone": 390}
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("sweep")
    write_sweep(logdir)
    out = tmp_path_factory.mktemp("report")
    assert report.main([str(logdir), f"--out={out}"]) == 0
    return (out / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    # What the page would load or run is in the log.
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(params=WIDTHS)
def page(request, browser, address):
    """The page at one width. A window cannot be as narrow as a phone, an emulated screen can."""
    width = WIDTHS[request.param]
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get(address)
    assert browser.execute_script("return innerWidth") == width
    return browser


def test_the_page_does_not_scroll_sideways(page):
    wide, inner = page.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner


def test_wide_tables_scroll_in_their_own_box(page):
    boxes = page.execute_script(
        "return [...document.querySelectorAll('.scroll')].map(box => ["
        "  box.getBoundingClientRect().right, getComputedStyle(box).overflowX,"
        "  box.querySelectorAll('table').length])"
    )
    width = page.execute_script("return innerWidth")
    assert boxes and all(right <= width for right, _, _ in boxes)
    assert {tuple(rest) for _, *rest in boxes} == {("auto", 1)}


def test_what_scrolls_shows_that_it_does(page):
    found = page.execute_script(
        "return [...document.querySelectorAll('.scroll')].map(box => ["
        "  box.scrollWidth > box.clientWidth, box.previousElementSibling.className,"
        "  getComputedStyle(box.previousElementSibling).display,"
        "  getComputedStyle(box).backgroundImage.split('gradient').length - 1,"
        "  box.querySelectorAll('thead th').length])"
    )
    is_phone = page.execute_script("return innerWidth") < 600
    assert all(scrolls for scrolls, *_ in found) is is_phone
    # A shade at either side, and paper over it where there is nothing more; words on a phone.
    assert all(shades == 4 for *_, shades, _ in found)
    for scrolls, before, display, _, columns in found:
        assert columns > 2 and (before == "hint" and display == "block") is (is_phone and scrolls)


def test_the_verdict_is_seen_whole(page):
    """As cards on a phone, a line a variant on a desktop, and nothing beyond the edge."""
    width, boxes = page.execute_script(
        "const box = document.querySelector('#verdict-table ~ .stack');"
        "return [innerWidth, [...box.querySelectorAll('tbody tr:not(.title)')].map(row => ["
        "  row.getBoundingClientRect().height, box.scrollWidth <= box.clientWidth,"
        "  ...[...row.querySelectorAll('td')].map(td =>"
        "    [td.getBoundingClientRect().right, getComputedStyle(td, '::before').content])])]"
    )
    assert len(boxes) == 6
    for height, fits, *parts in boxes:
        assert fits and all(right <= width for right, _ in parts)
        if width < 600:
            named = [content.strip('"') for _, content in parts]
            assert named == ["Speed", "Memory", "Accuracy", "Seeds"]
        else:
            assert {content for _, content in parts} == {"none"} and height < 70


def test_a_desktop_is_used(page):
    width, widths = page.execute_script(
        "return [innerWidth, [...document.querySelectorAll('table')].map(table =>"
        "  table.getBoundingClientRect().width)]"
    )
    assert width < 600 or all(table > 0.9 * width for table in widths)


def test_all_pictures_are_loaded_and_fit(page):
    pictures = page.execute_script(
        "return [...document.images].map(image => [image.complete, image.naturalWidth,"
        " image.getBoundingClientRect().width, image.alt])"
    )
    # Two loops, five pictures each.
    assert len(pictures) == 10
    width = page.execute_script("return innerWidth")
    for is_complete, natural, shown, alt in pictures:
        assert is_complete and natural > 0 and 300 < shown <= width
        assert "mixed_float16" in alt


def test_all_tables_are_there(page):
    rows = page.execute_script(
        "return [...document.querySelectorAll('table')].map(table =>"
        " table.querySelectorAll('tbody tr').length)"
    )
    # Verdicts; figures, scales and gradients of each loop; versions.
    assert len(rows) == 8 and all(rows)


def test_headings_are_in_order(page):
    headings = page.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,h4')].map(heading => ["
        " Number(heading.tagName[1]), heading.textContent, heading.id])"
    )
    levels = [level for level, _, _ in headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    second = [text for level, text, _ in headings if level == 2]
    assert second[0] == "Verdict" and second[-1] == "Where the numbers come from"
    assert len(second) == 4
    assert all(name for level, _, name in headings if level in (2, 3))


def test_the_contents_lead_to_headings(page):
    dead = page.execute_script(
        "return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))"
        ".filter(href => !document.getElementById(href.slice(1)))"
    )
    assert dead == []
    assert page.execute_script("return document.querySelectorAll('nav a').length") == 3


def test_text_is_large_enough_to_read(page):
    sizes = page.execute_script(
        "const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);"
        "const found = new Set();"
        "while (walker.nextNode()) if (walker.currentNode.textContent.trim())"
        "  found.add(parseFloat(getComputedStyle(walker.currentNode.parentElement).fontSize));"
        "return [...found];"
    )
    assert min(sizes) >= 12
    # Text of 12 points in a picture 6 inches wide, as it is shown.
    (narrowest,) = page.execute_script(
        "return [Math.min(...[...document.images].map(image => image.width))]"
    )
    assert narrowest / 6 * 12 / 72 >= 9


def test_nothing_is_fetched_and_nothing_complains(page):
    loaded = page.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in loaded if not name.startswith("data:")] == []
    assert page.get_log("browser") == []
    assert page.execute_script("return document.scripts.length") == 0


def test_the_page_says_its_language_and_title(page):
    assert page.execute_script("return document.documentElement.lang") == "en"
    assert page.title.startswith("Mixed-precision report")
