"""Text as a hostile peer would send it, and everything of the lab that shows text, showing it."""

import json
from typing import Any

from bookinfo_lab.kube.places import Place
from bookinfo_lab.netfilter import proof
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.ruleset import parse
from bookinfo_lab.netfilter.side_by_side import Row
from bookinfo_lab.packets import pcapng
from bookinfo_lab.show import banner, tables
from bookinfo_lab.show.capture import Capture
from bookinfo_lab.show.choose import choose
from bookinfo_lab.show.explorer import Explorer
from bookinfo_lab.show.listing import Listing, Rules
from bookinfo_lab.show.page import Page
from bookinfo_lab.show.proof import Proof
from bookinfo_lab.show.walk import Walk
from bookinfo_lab.sources.base import Evidence, FrontDoor, Query
from bookinfo_lab.teach.checks import WRONG, Step, Verdict

SCRIPT = "<script>window.hit='script'</script><img src=http://192.0.2.1/x onerror=\"window.hit='img'\">"
ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J"
MARKS = "\u202egnp.exe\u2066\u200b\ufeff"
CHAIN = SCRIPT.translate(str.maketrans(" '\"", "/``")) + ESCAPES + MARKS + "&"  # no quotes: iptables reads them away
LONG = "A" * 1_000_000
NASTY = f"{SCRIPT}{ESCAPES}{MARKS}\"'>&<b>{LONG}"


def evidence(kind: str, raw: str, *arguments: str, status: int = 0) -> Evidence:
    query = Query(kind, Place("pod", NASTY[:200], "p", "c"), arguments)
    return Evidence(
        query, raw.encode(), 1.7e9, f"sandbox {NASTY[:300]}", f"here {NASTY}", "there", status, NASTY.encode()
    )


class HostileSource:
    """A source whose every name is hostile."""

    kind = "sandbox"
    description = NASTY
    has_client = True
    published = f"http://127.0.0.1:1/\"><script>window.hit='url'</script>{MARKS}"

    def now(self) -> float:
        return 1.7e9

    def front_door(self) -> FrontDoor:
        return FrontDoor(NASTY, NASTY, NASTY, "192.0.2.1", 1)


class Ran:
    """A capture that is over."""

    evidence = evidence("capture", "", NASTY[:300])


def shown() -> dict[str, Any]:
    """Each thing that shows text, by name."""
    pods = {"items": [{"kind": "Pod", "metadata": {"name": NASTY, "namespace": MARKS}, "status": {"phase": SCRIPT}}]}
    fields = f"Content-Type: text/html\r\nX-{SCRIPT[:8]}: {NASTY[:60000]}"
    page = f"HTTP/1.1 200 {SCRIPT}\r\n{fields}\r\n\r\n<h1>own</h1>{SCRIPT}"
    plain = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{NASTY}"
    chain = f"A{SCRIPT.split(' ')[0]}"
    rule = f'*nat\n:{chain} - [0:0]\n-A {chain} -m comment --comment "{NASTY}" -j X\nCOMMIT\n'
    rules = Rules(evidence("rules", rule, "iptables-nft-save"))
    walk = hostile_walk()
    Ran.evidence = Evidence(
        Query("capture"), pcapng.write([pcapng.Interface(NASTY[:60000])], []), 1.0, "o", f"here {NASTY}", "there"
    )
    listing = Listing(evidence("exec", f"{NASTY}\n{MARKS}\n" * 3, "x", status=3))
    return {
        "banner": Shown(banner.as_html(HostileSource(), NASTY)),
        "listing": listing,
        "grep": listing.grep(SCRIPT),
        "listing table": Listing(evidence("processes", f"UID {SCRIPT} CMD\n{NASTY} b c\n")).table(),
        "rules": rules,
        "rules table": rules.table(),
        "pods": tables.of_objects("pods", evidence("objects", json.dumps(pods)), 1.7e9),
        "pods selected": tables.of_objects("pods", evidence("objects", json.dumps(pods)), 1.7e9)[["NAME", "STATUS"]],
        "named table": tables.Table((SCRIPT, MARKS), [(NASTY, {"a": SCRIPT})], None, NASTY).set_index(SCRIPT),
        "page": Page(evidence("get", page, "/")),
        "plain page": Page(evidence("get", plain, "/")),
        "capture": Capture(Ran(), (NASTY,)),
        "chooser": choose([NASTY, MARKS], lambda _: listing),
        "walk": walk,
        "walk drawn": Shown(walk.svg()),
        "walk table": walk.table(),
        "proof": hostile_proof(),
        "explorer": Explorer(walk.ruleset, walk),
        "explorer elsewhere": elsewhere(Explorer(walk.ruleset)),
        "verdict": Verdict("01-1", WRONG, NASTY, (Step(NASTY, True), Step(NASTY, False, NASTY))),
    }


def hostile_walk() -> Walk:
    """A walk whose chain, set, interface, comment and mark are hostile; one rule of the ruleset cannot be read."""
    chain, quoted = CHAIN, NASTY.replace("\\", "\\\\").replace('"', '\\"')
    text = f"""*filter
:INPUT ACCEPT [0:0]
:{chain} - [0:0]
:{chain}2 - [0:0]
-A INPUT -i {chain} -m comment --comment "{quoted}" -j {chain}
-A {chain} -m set --match-set {chain} src -m comment --comment "{quoted}" -j LOG --log-prefix "{quoted}"
-A {chain} -m recent --rcheck --name {chain} --rsource -j REJECT --reject-with icmp-port-unreachable
-A {chain} -m recent --rcheck --name {chain} --rsource -j {chain}-nowhere --{chain} {chain}
-A {chain} -p udp -m nonsense --{chain} {chain} -j {chain}-nowhere --{chain} {chain}
-A {chain}2 -m "{quoted}
COMMIT
"""
    ruleset = parse(text, NASTY[:300])
    return Walk(ruleset.walk(Packet("192.0.2.1", 1, "192.0.2.2", 80, iif=chain)), ruleset, NASTY)


def hostile_proof() -> Proof:
    rows = (Row(NASTY, NASTY, NASTY, NASTY, False), Row("nat A 1", NASTY, "accept", "accept", True))
    return Proof(proof.Proof("differ", NASTY, NASTY, (1, 2), rows, (NASTY,)), evidence("prove", "", NASTY[:300]))


def elsewhere(explorer: Explorer) -> Explorer:
    """The explorer, after a jump was followed, at a rule that cannot be read."""
    explorer.follow(1)
    explorer.open("filter", f"{CHAIN}2")
    return explorer


class Shown:
    """HTML that is not an object's own."""

    def __init__(self, html: str) -> None:
        self._html = html

    def _repr_html_(self) -> str:
        return self._html


def html_of(thing: Any) -> str:
    """A thing's HTML as a notebook without widgets takes it."""
    bundle = getattr(thing, "_repr_mimebundle_", None)
    return str(bundle()["text/html"] if bundle else thing._repr_html_())
