"""Cells of CSV files that people open in a spreadsheet, which computes what looks like a formula (OWASP, CSV injection)."""

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # with the apostrophes that `guarded` put there


def guarded(cell: str) -> str:
    """The cell with an apostrophe in front where a spreadsheet would compute it; control characters are spaces."""
    cell = "".join(c if c.isprintable() else " " for c in cell)
    return f"'{cell}" if _FORMULA.match(cell) else cell


def plain(cell: str) -> str:
    """What was given to `guarded`."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell
