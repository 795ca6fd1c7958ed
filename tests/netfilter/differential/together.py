"""A run in several processes, each with a room of its own; what they found is one report.

The cases are those of one process with the same seed, dealt out in turn.
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from differential import cases, coverage, running
from differential.running import Report, Stand
from kernel.room import Room


def run(
    seed: str, flows: int, *, jobs: int = 1, kinds: Sequence[str] = cases.ORDER, most: int = 5, shrinks: bool = True
) -> Report:
    """Compare ``flows`` packets, or end a part after ``most`` disagreements; these are shrunk if ``shrinks``."""
    work = [(seed, -(-flows // jobs), part, jobs, tuple(kinds), most, shrinks) for part in range(jobs)]
    if jobs == 1:
        return run_part(*work[0])
    report = Report()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in pool.map(run_part, *zip(*work, strict=True)):
            report.merge(done)
    return report


def covering(
    seed: str, flows: int, *, jobs: int = 1, most: int = 5, least: int = coverage.LEAST, shrinks: bool = True
) -> Report:
    """`run`, then drills, half as many packets again at most, while something was met fewer than ``least`` times."""
    report = run(seed, flows, jobs=jobs, most=most, shrinks=shrinks)
    for more in range(4):
        if report.disagreements or not coverage.lacking(report.tally, least):
            break
        report.merge(run(f"{seed}+{more}", flows // 8, jobs=jobs, kinds=("drill",), most=most, shrinks=shrinks))
    return report


def run_part(seed: str, flows: int, part: int, parts: int, kinds: tuple[str, ...], most: int, shrinks: bool) -> Report:
    """One process's part."""
    report = Report()
    with Room() as room:
        stand = Stand(room)
        given = cases.cases(seed, maps_owners=room.maps(1337, 1337), kinds=kinds, part=part, parts=parts)
        running.run(stand, given, report, flows=flows, most=most)
        if shrinks:
            report.disagreements = [running.shrink(stand, found) for found in report.disagreements]
    return report
