"""The report on a cluster as a page: the lines are those of every report, the verdict is a cluster's.

Pure.
"""

import textwrap

from bookinfo_lab.doctor.findings import Report, is_fit
from bookinfo_lab.doctor.page import WIDTH, as_page, printable


def as_cluster_page(report: Report) -> str:
    """The page; no newline at its end."""
    lines = as_page(report).rpartition("\n\n")[0]  # its last paragraph is about a sandbox
    return f"{lines}\n\n" + "\n".join(textwrap.wrap(printable(verdict(report)), WIDTH, break_on_hyphens=False))


def verdict(report: Report) -> str:
    """The last sentence: whether the lab can read the cluster, and for want of what."""
    missing = [check.name for check in report.checks if not check.ok and check.needed]
    optional = [check.name for check in report.checks if not check.ok and not check.needed]
    if not is_fit(report):
        return f"The lab cannot read this cluster yet; to be mended first: {', '.join(missing)}."
    if optional:
        return f"The lab can read this cluster. Missing, and not needed for that: {', '.join(optional)}."
    return "The lab can read this cluster, with everything."
