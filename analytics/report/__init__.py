"""The report: one page that tells what became of the mail of some hours or days, with pictures; no script, nothing from elsewhere.

page(gather(warehouse, since, until, tenant="shop"))
"""

from analytics.report.facts import Facts, gather
from analytics.report.page import page

__all__ = ["Facts", "gather", "page"]
