"""Parts of the page: tables, legends, pictures in two widths. Cells are text and escaped here; only `Markup` is taken as it is."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from analytics.report.charts import New
from analytics.report.svg import drawing, svg
from analytics.report.text import told

WIDE, NARROW = 880, 340  # pixels of a picture: of a desktop or a sheet, of a phone
MOST = 12  # rows of a table


class Markup(str):
    """HTML that was made here."""


class Column(NamedTuple):
    """`number`: aligned to the right."""

    title: str
    number: bool = False


def cell(value: str) -> str:
    return value if isinstance(value, Markup) else told(value)


def paragraph(text: str, kind: str = "") -> str:
    """Markup is taken as it is."""
    of_kind = f' class="{kind}"' if kind else ""
    return f"<p{of_kind}>{text if isinstance(text, Markup) else html.escape(text)}</p>"


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[str]], most: int = MOST) -> str:
    """The first column names the row; rows over `most` are counted and left out."""
    rows = list(rows)
    head = "".join(f'<th scope="col"{_kind(column)}>{html.escape(column.title)}</th>' for column in columns)
    lines = []
    for row in rows[:most]:
        name, *others = (cell(value) for value in row)
        cells = "".join(f"<td{_kind(column)}>{value}</td>" for column, value in zip(columns[1:], others, strict=True))
        lines.append(f'<tr><th scope="row"{_kind(columns[0])}>{name}</th>{cells}</tr>')
    more = f"; {len(rows) - most:,} more are not shown" if len(rows) > most else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(caption)}"><table><caption>{html.escape(caption + more)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{chr(10).join(lines)}\n</tbody></table></div>"
    )


def _kind(column: Column) -> str:
    return ' class="n"' if column.number else ""


def legend(*items: tuple[str, str], line: str = "") -> str:
    """What colours mean: (role, words); the role `line` is drawn as one."""
    return (
        '<ul class="legend">'
        + "".join(
            f'<li><i{" class=line" if role == line else ""} style="background:var(--{role})"></i>{html.escape(words)}</li>'
            for role, words in items
        )
        + "</ul>"
    )


def picture(name: str, title: str, description: str, draw: Callable[[New, float], Figure | None], key: str = "") -> str:
    """A chart, once for wide pages and once for narrow ones, below its legend `key`; nothing where there is nothing to draw."""
    drawn = []
    for kind, width in (("wide", WIDE), ("narrow", NARROW)):
        with drawing() as new:
            if (figure := draw(new, width)) is None:
                return ""
            drawn.append(f'<div class="{kind}">{svg(figure, f"{name}-{kind}", title, description)}</div>')
    return f"<figure>{key}{''.join(drawn)}</figure>"
