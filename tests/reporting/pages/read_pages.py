"""Reads a page as a browser would, and its Markdown as GitHub would."""

from __future__ import annotations

import html.parser
import re

from tfamp.reporting import comparison, document, runs
from tfamp.reporting.pages import report_page


class Reader(html.parser.HTMLParser):
    """Collects a page's elements and text, and checks that they are nested."""

    EMPTY = ("meta", "br", "img")

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.rows = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if "tr" in self.open and self.rows[-1]:
            self.rows[-1][-1] += f" {data.strip()}" if data.strip() else ""

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def markdown_rows(text):
    """The cells of every table, checked to be as many in each of its rows."""
    found = []
    assert not re.search(r"^(?!\|).+\n\|", text, re.MULTILINE), "a table needs an empty line above"
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        split = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
        assert len({len(row) for row in split}) == 1, block
        assert all(re.fullmatch(r" -{3}:? ", cell) for cell in split[1])
        found += [[cell.strip() for cell in row] for row in split]
    return found


def undrawn(logdir, baseline="float32"):
    """A report without its pictures, which take seconds: document, page and Markdown."""
    found, passed_over = runs.find(logdir, logdir / "report")
    compared = comparison.compare(found, baseline)
    content = document.build(logdir, baseline, compared, passed_over)
    page = report_page.page_of(content)
    return content, Reader(page.html({})), page.markdown({})
