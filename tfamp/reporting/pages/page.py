"""A page that a command leaves behind: what every one has, and how it becomes a text.

A page of a command of its own is a `Page` and two templates, `NAME.html.jinja` and `NAME.md.jinja`,
that extend `base` and fill its blocks: `about` (a sentence on what was looked at), `verdict`,
`sections` and, behind where the numbers come from, `appendix`. They find the page's `context`, its
`document`, the `pictures` by folder, and `parts` that look alike on every page: `table`, `pictures`
and `list` in HTML, `table`, `picture` and `code` in Markdown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe

from tfamp.reporting.pages import formatting, markdown
from tfamp.reporting.pages.placed_picture import PlacedPicture
from tfamp.reporting.pages.table import Table

_OWN_TEMPLATES = jinja2.PackageLoader("tfamp.reporting.pages")
# Warnings that are shown in full above the verdict; further ones by a link.
_WARNINGS_ABOVE = 6


@dataclasses.dataclass(frozen=True)
class Source:
    """Where numbers come from: one line of a page's last section.

    Attributes:
        name: What it is, such as `Devices`.
        lines: Its values.
        is_code: Whether they are set as code.
    """

    name: str
    lines: Sequence[str]
    is_code: bool = False


@dataclasses.dataclass(frozen=True)
class Page:
    """What a command shows, in HTML, in Markdown and as JSON.

    Attributes:
        name: Of its files, `NAME.html`, `NAME.md` and `NAME.json`, and of its templates.
        title: Its heading.
        subject: What was looked at, such as a folder; for the window's title.
        document: Every number of it as JSON values, and the tfamp that made it: `tfamp_version`,
            or `versions` of packages.
        lead: What is to be said before all else, such as that nothing could be compared.
        next_steps: What to run, each `why` and `commands`.
        warnings: What may mislead a reader, the gravest first.
        sources: Where the numbers come from.
        versions: Packages and their versions.
        commands: Command lines by what they ran.
        context: What its own templates ask for besides.
        pictures: Patterns of the files of every picture that it may have, below `pictures/`.
        templates: Where its own templates are, if not beside `base`.
    """

    name: str
    title: str
    subject: str
    document: Mapping[str, Any]
    lead: str = ""
    next_steps: Sequence[Mapping[str, Any]] = ()
    warnings: Sequence[str] = ()
    sources: Sequence[Source] = ()
    versions: Table | None = None
    commands: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    context: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pictures: Sequence[str] = ()
    templates: jinja2.BaseLoader | None = None

    @property
    def tfamp_version(self) -> str:
        """Of the tfamp that made it."""
        versions = self.document.get("versions", {})
        return str(self.document.get("tfamp_version") or versions["tfamp"])

    @property
    def warnings_above(self) -> Sequence[str]:
        """Those that are shown in full above the verdict."""
        return self.warnings[:_WARNINGS_ABOVE]

    def html(self, pictures: Mapping[str, Sequence[PlacedPicture]]) -> str:
        """The page in one file that asks for no other; `pictures` by their folders."""
        environment = self._environment(autoescape=True, finalize=_html)
        parts = environment.get_template("parts.html.jinja").module
        return self._filled(environment, f"{self.name}.html.jinja", parts, pictures)

    def markdown(self, pictures: Mapping[str, Sequence[PlacedPicture]]) -> str:
        """The same as GitHub shows Markdown, with the pictures beside it."""
        environment = self._environment(autoescape=False, finalize=_markdown)
        return self._filled(environment, f"{self.name}.md.jinja", markdown, pictures)

    def _environment(self, **options: Any) -> jinja2.Environment:
        own = self.templates
        return jinja2.Environment(
            loader=_OWN_TEMPLATES if own is None else jinja2.ChoiceLoader([own, _OWN_TEMPLATES]),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            **options,
        )

    def _filled(
        self,
        environment: jinja2.Environment,
        template: str,
        parts: Any,
        pictures: Mapping[str, Sequence[PlacedPicture]],
    ) -> str:
        return environment.get_template(template).render(
            page=self, document=self.document, parts=parts, pictures=pictures, **self.context
        )


# What a template puts in is escaped for its format, unless a part made it.


def _html(value: Any) -> Any:
    if isinstance(value, markupsafe.Markup):
        return value
    return "" if value is None else formatting.one_line(value)


def _markdown(value: Any) -> Any:
    if isinstance(value, markupsafe.Markup):
        return value
    return "" if value is None else markdown.escape(value)
