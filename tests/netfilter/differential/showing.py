"""A run and its disagreements as text: what to type to see one again, the rules that are left of it, both answers."""

from collections.abc import Iterable

from differential import coverage
from differential.running import Disagreement, Report
from kernel.flow import Observation

from bookinfo_lab.trace import Step


def summary(report: Report) -> str:
    """What a run did, in figures."""
    asked = max(report.flows, 1)
    plain = report.flows - report.open_flows
    lines = [
        f"{report.flows} packets compared in {report.cases} rulesets: {len(report.disagreements)} disagreements",
        f"  by kind: {_counts(report.kinds)}",
        f"  by what the kernel did: {_counts(report.verdicts)}",
        f"  outcomes: {report.outcomes / asked:.3f} a packet in the mean",
        f"    exactly 1 for each of {plain} packets where nothing is open",
        f"    {report.open_outcomes / max(report.open_flows, 1):.2f} for {report.open_flows} others",
        f"  unknown: {report.unknown} packets, {100 * report.unknown / asked:.2f} % ({_counts(report.unknown_why)})",
        f"  could not be sent: {sum(report.refused.values())} ({_counts(report.refused)})",
        f"  had no source to ask with: {report.unasked}",
        f"  not seen whole: {sum(report.incomplete.values())} ({_counts(report.incomplete)})",
    ]
    return "\n".join(lines)


def _counts(counted: dict[str, int]) -> str:
    most = sorted(counted.items(), key=lambda item: -item[1])[:8]
    return ", ".join(f"{name} {number}" for name, number in most) or "none"


def disagreement(found: Disagreement) -> str:
    """Everything needed to see one again by hand."""
    case = found.case
    tool = "iptables-nft-restore" if case.family == 4 else "ip6tables-nft-restore"
    lines = [
        f"=== {case.name} ({case.surroundings.name}{', read from iptables-nft-save' if case.is_saved else ''})",
        f"{tool} <<END",
        *_shown(case.text),
        "END",
        f"{found.probe.direction} packet: {found.probe.flow}",
        f"DIFFERENCE: {found.said}",
    ]
    for predicted in found.predicted[:3]:
        lines.append(
            f"predicted ({predicted.probability:.3g}): {predicted.verdict} {predicted.out} — {predicted.outcome.why}"
        )
        lines += [_step(step) for step in predicted.steps if step.matched is not False]
    if found.seen is not None:
        lines += _kernel(found.seen)
    return "\n".join(lines)


def _step(step: Step) -> str:
    view = " ".join(f"{name}={value}" for name, value in step.after)
    return f"    {step.where} | {step.what} | {step.verdict} | {step.why} | {view}"


def _shown(text: str) -> list[str]:
    """Base chains that only accept are left out: iptables-restore makes them."""
    return [line for line in text.splitlines() if not (line.startswith(":") and " ACCEPT " in line)]


def _kernel(seen: Observation) -> list[str]:
    lines = [
        f"kernel: {seen.verdict} {seen.out} mark {seen.mark:#x} answer {seen.answer or '-'} errno {seen.errno or '-'}"
    ]
    lines += [
        f"    {visit.kind} {visit.table} {visit.chain} {visit.number or ''} | {visit.verdict} | mark {visit.mark:#x}"
        for visit in seen.visits
    ]
    return [*lines, f"    {seen.sent} → {seen.final}", f"    {seen.connection}"]


def lacking(report: Report, least: int = coverage.LEAST) -> str:
    """What the run did not meet often enough, "" for nothing."""
    found = coverage.lacking(report.tally, least)
    return (
        ""
        if not found
        else "\n".join([f"met fewer than {least} times one way or the other:", *(f"  {line}" for line in found)])
    )


def all_lines(parts: Iterable[str]) -> str:
    """Parts that say something, under each other."""
    return "\n".join(part for part in parts if part)
