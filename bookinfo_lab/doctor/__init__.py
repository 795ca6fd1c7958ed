"""`bookinfo-lab doctor`: what this machine can do for the lab, found out by trying.

Edge.  The attempts run in namespaces of their own (`inside`), so nothing of the machine changes and nothing is
left.  A no has its mending line and what works without it; a cause that nothing here shows is called unknown.
Importing this is safe on every system; the sandbox's parts are loaded on Linux alone.
"""

import platform
import sys

from bookinfo_lab.doctor import judge
from bookinfo_lab.doctor.findings import Check, Finding, Report, as_document, is_fit
from bookinfo_lab.doctor.page import as_page

__all__ = ["Check", "Report", "as_document", "as_page", "examine", "is_fit"]


def examine(limit_s: float = 10.0) -> Report:
    """Try everything, in about a second; no machine makes this raise.

    Attempts that have not come to their end after ``limit_s`` are ended; what they found until then counts.
    """
    host = judge.system(platform.system(), platform.release(), platform.machine(), platform.libc_ver())
    first = [host, judge.python(tuple(sys.version_info[:3]))]
    if platform.system() != "Linux":
        return Report(tuple(first))
    from bookinfo_lab.doctor import explore, machine

    here = machine.surroundings()
    with machine.place() as (folder, place):
        path, absent = machine.envoy_path()
        found = explore.run(place, path, limit_s)
        found["Envoy"] = machine.envoy(path) if path else Finding("Envoy", False, absent)
    found |= machine.programs() | machine.closed(path)
    first += [judge.memory(machine.available_mib()), judge.state_folder(folder)]
    return Report((*first, *judge.checks(found, here)))
