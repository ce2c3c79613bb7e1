"""A figure of matplotlib as SVG inside a page: coloured by the page's CSS variables, its text real text, named for a screen reader.

    with drawing() as new:
        figure = new(840, 240)              pixels
        axes.bar(..., color=colour("delivered"))
    svg(figure, "volumes", "Volumes", "What it shows")

Colours are told to matplotlib as stand-ins, which become `var(--delivered)` in the SVG, so one picture serves light, dark and print.
The same figure gives the same text, whatever the time, the machine's fonts and its configuration of matplotlib.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
from matplotlib.figure import Figure

ROLES = (
    "ink", "muted", "rule", "accepted", "delivered", "bounced", "dropped", "rejected", "expired", "cancelled", "deferred",
    "complained", "in-flight", "heat-none", "heat-0", "heat-1", "heat-2", "heat-3", "heat-4",
)  # fmt: skip
_STAND_INS = {role: f"#0101{number:02x}" for number, role in enumerate(ROLES, 1)}
_ROLE_OF = {stand_in: role for role, stand_in in _STAND_INS.items()}
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_PX = 72  # matplotlib writes SVG in points of 1/72 inch: a unit of the picture is meant as a pixel
FONT_PX = 12
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "postroad", "text.parse_math": False, "font.family": ["DejaVu Sans"],
    "font.size": FONT_PX, "axes.titlesize": FONT_PX, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.labelsize": FONT_PX, "xtick.labelsize": FONT_PX - 1, "ytick.labelsize": FONT_PX - 1,
    "axes.edgecolor": _STAND_INS["rule"], "axes.labelcolor": _STAND_INS["muted"], "axes.titlecolor": _STAND_INS["ink"],
    "xtick.color": _STAND_INS["rule"], "ytick.color": _STAND_INS["rule"], "xtick.labelcolor": _STAND_INS["muted"],
    "ytick.labelcolor": _STAND_INS["muted"], "text.color": _STAND_INS["ink"], "axes.spines.top": False,
    "axes.spines.right": False, "axes.spines.left": False, "xtick.major.size": 3, "ytick.major.size": 0,
    "axes.grid.axis": "y", "grid.color": _STAND_INS["rule"], "grid.linewidth": 0.8, "axes.axisbelow": True,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "timezone": "UTC",
}  # fmt: skip


def colour(role: str) -> str:
    """The stand-in for the CSS variable `--role`. Raises KeyError for a role that the page has not."""
    return _STAND_INS[role]


@contextlib.contextmanager
def drawing() -> Iterator[Callable[[float, float], Figure]]:
    """Our style, whatever the user's is; makes figures of a width and height in pixels."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # the browser has it, or shows a box
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield lambda width, height: Figure(figsize=(width / _PX, height / _PX), dpi=_PX, layout="constrained")


def svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an element of a page; `name` begins every id in it."""
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(written.getvalue())
    for parent in root.iter():
        for child in [
            one for one in parent if one.tag.endswith(("}metadata", "}style"))
        ]:  # a style would be the whole page's
            parent.remove(child)
    _own_ids(root, name)
    for element in root.iter():
        if style := element.get("style"):
            element.set("style", _styled(style))
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        told = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        told.text = text
        root.insert(place, told)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    return ElementTree.tostring(root, encoding="unicode")


def _own_ids(root: ElementTree.Element, name: str) -> None:
    """Ids that something refers to begin with `name`; the others go: matplotlib gives every figure the same."""
    used = set[str]()
    for element in root.iter():
        for key, value in element.attrib.items():
            if key.endswith("href") and value.startswith("#"):
                used.add(value[1:])
                element.set(key, f"#{name}-{value[1:]}")
            elif found := re.fullmatch(r"url\(#(.+)\)", value):
                used.add(found[1])
                element.set(key, f"url(#{name}-{found[1]})")
    for element in root.iter():
        if (own := element.attrib.pop("id", None)) in used:
            element.set("id", f"{name}-{own}")


def _styled(style: str) -> str:
    style = re.sub(r"#0101[0-9a-f]{2}", lambda found: f"var(--{_ROLE_OF[found[0]]})", style)
    return re.sub(r"'DejaVu Sans'(, [^;]+)?", "var(--font)", style)
