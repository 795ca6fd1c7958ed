"""The walk against the kernel, any number of packets:

    PYTHONPATH=tests/netfilter python -m differential --flows 100000 --seed 7
    PYTHONPATH=tests/netfilter python -m differential --case drill/7/31        # one ruleset again, as it was named

Prints what it did and each disagreement, shrunk; ends with 1 where there is one, where frequencies do not fit, or where
a modelled match or target was met too seldom (`--least 0` asks for none).
"""

import argparse
import os
import sys
import time
from pathlib import Path

from differential import cases, chances, running, showing, together
from differential.running import Report, Stand
from kernel.room import Room

import bookinfo_lab


def main() -> int:
    """Run, print, and say whether all is well."""
    asked = _arguments()
    start = time.monotonic()
    wrong: list[str] = []
    if asked.case:
        report, asked.least = _one(asked.case, shrinks=not asked.whole), 0
    else:
        with Room() as room:
            wrong = chances.wrong(Stand(room), asked.seed, asked.rulesets)
        report = Report()
        if not (wrong and asked.most == 1):
            shrinks, kinds = not asked.whole, asked.kinds.split(",")
            if asked.least and kinds == list(cases.ORDER):
                report = together.covering(
                    asked.seed, asked.flows, jobs=asked.jobs, most=asked.most, least=asked.least, shrinks=shrinks
                )
            else:
                report = together.run(
                    asked.seed, asked.flows, jobs=asked.jobs, kinds=kinds, most=asked.most, shrinks=shrinks
                )
    lacking = showing.lacking(report, asked.least) if asked.least else ""
    shown = [f"{showing.disagreement(found)}\n" for found in report.disagreements]
    took = f"{time.monotonic() - start:.1f} s"
    package = f"package {Path(bookinfo_lab.__file__).parent}"
    sys.stdout.write(showing.all_lines((*shown, package, showing.summary(report), lacking, *wrong, took)) + "\n")
    return int(bool(report.disagreements or lacking or wrong))


def _one(name: str, *, shrinks: bool) -> Report:
    report = Report()
    with Room() as room:
        stand = Stand(room)
        case = cases.named(name, maps_owners=room.maps(1337, 1337))
        running.run(stand, [case], report, flows=len(case.probes))
        if shrinks:
            report.disagreements = [running.shrink(stand, found) for found in report.disagreements]
    return report


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m differential", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--flows", type=int, default=12000, help="packets to compare (12000)")
    parser.add_argument("--seed", default="1", help="names the run: the same seed makes the same rules and packets")
    parser.add_argument(
        "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes, each with its own room"
    )
    parser.add_argument("--kinds", default=",".join(cases.ORDER), help="kinds of rulesets, in turn")
    parser.add_argument("--case", help="one case by its name, KIND/SEED/NUMBER")
    parser.add_argument("--most", type=int, default=5, help="each process stops after so many disagreements (5)")
    parser.add_argument(
        "--least", type=int, default=20, help="how often each match and target must be met both ways (20)"
    )
    parser.add_argument("--rulesets", type=int, default=4, help="random rulesets whose frequencies are measured (4)")
    parser.add_argument("--whole", action="store_true", help="do not shrink")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
