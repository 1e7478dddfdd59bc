"""The pages of the book, as a browser without a network shows them."""

import functools
import http.server
import re
import threading
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "data" / "book" / "html"
PAGES = sorted(str(path.relative_to(BOOK)) for path in BOOK.rglob("*.html") if "_static" not in path.parts)
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Made by Sphinx, with nothing to read.
INDEXES = {"genindex.html", "search.html"}

pytest.importorskip("selenium", reason="needs the environment of the book, see docs/running.md")
if not PAGES:
    pytest.skip("there is no book: ./run_all.sh book makes it", allow_module_level=True)

# Text that a reader sees, code left out, in which TeX is left.
RAW_TEX = r"""async () => {
    if (window.MathJax) await MathJax.startup.promise;
    const left = [], skip = "pre, code, .sig, script, style, noscript, mjx-container";
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode()); )
        if (!node.parentElement.closest(skip) && /\$|\\[([]|\\[a-z]{2}/i.test(node.data)) left.push(node.data.trim());
    const formulas = document.querySelectorAll(".math").length;
    const drawn = document.querySelectorAll("mjx-container").length;
    if (drawn < formulas) left.push(`${drawn} of ${formulas} formulas are drawn`);
    // MathJax draws an unknown command in red.
    for (const e of document.querySelectorAll("[data-mjx-error], mjx-container [fill=red]"))
        left.push(e.dataset.mjxError || "an unknown command");
    return left;
}"""
# Pictures that are not loaded, have no text for those who do not see them, or reach beyond their column.
BAD_PICTURES = """async () => {
    const bad = [];
    for (const image of document.querySelectorAll("article img")) {
        await image.decode().catch(() => {});
        const box = image.getBoundingClientRect(), column = document.querySelector("article").getBoundingClientRect();
        const name = image.getAttribute("src");
        if (!image.naturalWidth) bad.push(name + " is not loaded");
        if (image.alt.trim().length < 10) bad.push(name + " has no text: " + image.alt);
        if (box.left < column.left - 1 || box.right > column.right + 1) bad.push(name + " is cut");
        if (Math.abs(box.width / box.height / (image.naturalWidth / image.naturalHeight) - 1) > 0.02)
            bad.push(name + " is distorted");
    }
    return bad;
}"""
# Elements that make the page itself scroll sideways. What scrolls within its own frame may be wider.
TOO_WIDE = """() => {
    const page = document.scrollingElement, wide = [];
    if (page.scrollWidth <= innerWidth) return wide;
    for (const e of document.querySelectorAll("article *"))
        if (e.getBoundingClientRect().right > innerWidth + 1) wide.push(e.tagName + "." + e.className);
    return [`${page.scrollWidth} of ${innerWidth}`, ...wide.slice(0, 5)];
}"""


class Page(HTMLParser):
    """The anchors of a page, and what it links to."""

    def __init__(self, name):
        super().__init__()
        self.anchors, self.links = set(), set()
        self.feed((BOOK / name).read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.anchors.add(attributes["id"])
        link = attributes.get("href") or attributes.get("src")
        if link and not re.match(r"https?:|mailto:|data:", link):
            self.links.add(unquote(link))


@pytest.fixture(scope="module")
def pages():
    return {name: Page(name) for name in PAGES}


@pytest.fixture(scope="module")
def site():
    """The address of the book."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=BOOK))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_shown_whole(browser, site, name):
    browser.problems()
    browser.driver.get(site + name)
    assert browser.driver.title
    assert browser.run(RAW_TEX) == []
    for width in (1280, 375):  # a laptop, a phone
        browser.resize(width)
        assert browser.run(BAD_PICTURES) == []
        assert browser.run(TOO_WIDE) == [], width
    assert browser.problems() == []


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(pages, name):
    missing = []
    for link in pages[name].links:
        path, anchor = urldefrag(urljoin(f"/{name}", link))
        file = path.partition("?")[0].lstrip("/") or "index.html"
        if not (BOOK / file).is_file() or (anchor and file in pages and anchor not in pages[file].anchors):
            missing.append(link)
    assert missing == []


def test_all_pages_are_found_from_the_first_one(pages):
    found, new = set(), {"index.html"}
    while new:
        found |= new
        links = {urldefrag(urljoin(f"/{name}", link))[0].lstrip("/") for name in new for link in pages[name].links}
        new = (links & pages.keys()) - found
    assert sorted(pages.keys() - found - INDEXES) == []


def test_each_lesson_can_be_downloaded(pages, site):
    for lesson in LESSONS:
        page = f"notebooks/{lesson.stem}.html"
        (link,) = [link for link in pages[page].links if link.endswith(lesson.name)]
        assert urllib.request.urlopen(urljoin(site + page, link)).read() == lesson.read_bytes()


def test_the_search_finds_a_lesson(browser, site):
    browser.driver.get(f"{site}search.html?q=periodic")
    found = """async () => {
        for (let tries = 0; tries < 100 && !document.querySelector("#search-results li a"); tries++)
            await new Promise(done => setTimeout(done, 100));
        return Array.from(document.querySelectorAll("#search-results li a"), a => a.pathname);
    }"""
    assert "/notebooks/01_gaussian_random_field.html" in browser.run(found)
    assert browser.run(RAW_TEX) == []


def test_the_book_is_small():
    assert sum(path.stat().st_size for path in BOOK.rglob("*") if path.is_file()) < 60e6
