"""Lab: what a learner asks.

A Lab asks its source for evidence, hands it to a parser and the result to `show`; it has no logic of its own.  Places
are named as on the command line (`kube.places`).  Every answer has ``.command``, the line that gets its evidence by
hand.  Imports that cost time (pandas, ipywidgets) come when an answer needs them.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube import owners, places
from bookinfo_lab.kube.owners import Owner
from bookinfo_lab.kube.places import Place
from bookinfo_lab.sources import base
from bookinfo_lab.sources.base import Evidence, FrontDoor, Query, Source

if TYPE_CHECKING:
    from bookinfo_lab.netfilter.facts import Facts
    from bookinfo_lab.show.capture import Capture
    from bookinfo_lab.show.choose import Chooser
    from bookinfo_lab.show.listing import Listing, Rules
    from bookinfo_lab.show.page import Page
    from bookinfo_lab.show.proof import Proof
    from bookinfo_lab.show.tables import Table
    from bookinfo_lab.show.walk import Walk
    from bookinfo_lab.sources.passing import Passing
    from bookinfo_lab.sources.recording import Contents
    from bookinfo_lab.teach.checks import Verdict
    from bookinfo_lab.teach.progress import Progress


class Lab:
    """A cluster to learn from.  ``why`` says in words why `connect` chose this source."""

    def __init__(self, source: Source, why: str = "") -> None:
        self.source, self.why = source, why

    def __repr__(self) -> str:
        return f"{self.source.description} ({self.why})" if self.why else self.source.description

    def _repr_html_(self) -> str:
        from bookinfo_lab.show import banner

        return banner.as_html(self.source, self.why)

    # Evidence as it is

    def fetch(self, kind: str, target: str = "", *arguments: str, container: str = "") -> Evidence:
        """The evidence of one kind (`sources.base.KINDS`) at ``target``: bytes, time, command."""
        place = self.place(target, container) if target else None
        return self.source.fetch(Query(kind, place, arguments))

    def objects(self, *resources: str) -> list[dict[str, Any]]:
        """Kubernetes API dicts of these resources (pods, services, endpointslices, nodes); all four by default."""
        raw = [self.source.fetch(Query("objects", None, (name,))).raw for name in resources or base.RESOURCES]
        return [item for text in raw for item in json.loads(text)["items"]]

    def place(self, target: str, container: str = "") -> Place:
        """The one place that ``target`` names; LabError lists the candidates where it is ambiguous or unknown."""
        objects = self.objects("pods", "nodes", *(["services"] if places.is_service(target) else []))
        return places.find(target, objects, container, has_client=self.source.has_client)

    # The cluster's objects

    def pods(self) -> "Table":
        """The pods of all namespaces in the columns of ``kubectl get pods -A -o wide``."""
        return self._table("pods")

    def services(self) -> "Table":
        """The Services in the columns of ``kubectl get services -A -o wide``."""
        return self._table("services")

    def endpoints(self) -> "Table":
        """The EndpointSlices in the columns of ``kubectl get endpointslices -A``."""
        return self._table("endpointslices")

    def nodes(self) -> "Table":
        """The nodes in the columns of ``kubectl get nodes -o wide``."""
        return self._table("nodes")

    def who_is(self, ip: str) -> tuple[Owner, ...]:
        """Whose address this is, the most particular owner first; empty where no object names it."""
        return owners.who_is(ip, self.objects())

    @property
    def front_door(self) -> FrontDoor:
        """The Service that requests from outside come in by."""
        return self.source.front_door()

    # Inside a node or a pod

    def rules(self, target: str, program: str = "iptables-nft-save") -> "Rules":
        """The packet-filter rules of a node's or a pod's network namespace, as ``program`` prints them."""
        from bookinfo_lab.show.listing import Rules

        place = self.place(target)
        evidence = self.source.fetch(Query("rules", place, (program,)))
        return Rules(evidence, read_facts=lambda: self._facts(evidence, place))

    def prove(self, walk: "Walk") -> "Proof":
        """Send the walked packet for real and lay the kernel's own trace of it beside the prediction, rule by rule.

        A recording shows the proof that was recorded of that packet.  LabError for what `rules(TARGET).walk` did not
        return; that the packet cannot be sent is an answer (``not run``), as is a trace with gaps (``not seen``).
        """
        from bookinfo_lab.netfilter import attempt, proof
        from bookinfo_lab.show.proof import Proof

        facts = getattr(getattr(walk, "ruleset", None), "facts", None)
        if facts is None or not facts.place:
            raise LabError("prove what lab.rules(TARGET).walk(packet) returned: a walk of rules that are this lab's")
        packet = proof.check(walk.trace)
        evidence = self.source.fetch(Query("prove", self.place(facts.place), attempt.words(packet)))
        found = proof.compare(walk.trace, attempt.read(evidence.raw, str(evidence.query)), walk.ruleset)
        return Proof(found, evidence)

    def packets(self) -> "Mapping[str, Passing]":
        """Packets of this lab's own traffic by name, each with the place that it passes (`sources.passing`)."""
        from bookinfo_lab.sources import passing

        return passing.packets(self.source)

    def addresses(self, target: str) -> "Table":
        """The interfaces of a network namespace and their addresses, as ``ip addr`` has them."""
        from bookinfo_lab.show import tables

        return tables.of_addresses(self.fetch("addresses", target))

    def processes(self, target: str, container: str = "") -> "Listing":
        """What ``ps -ef`` prints in one container: it does not see the pod's other containers."""
        return self._listing("processes", target, container=container)

    def sockets(self, target: str, container: str = "") -> "Listing":
        """What ``ss -tuanp`` prints in one container; sockets are the whole pod's, process names this container's."""
        return self._listing("sockets", target, container=container)

    def conntrack(self, target: str = "node") -> "Listing":
        """The connection-tracking table of a network namespace: a line for each connection that the kernel follows."""
        return self._listing("conntrack", target)

    def exec(self, target: str, *argv: str, container: str = "") -> "Listing":
        """What a program prints in a container, a node or the client; ``.evidence.status`` is its exit status."""
        return self._listing("exec", target, *argv, container=container)

    def envoy(self, target: str, path: str = "config_dump") -> "Listing":
        """What the admin of the target's Envoy answers to GET ``path`` (`sources.base.ADMIN_PATHS`)."""
        from bookinfo_lab.show.listing import Listing

        proxy = places.proxy_of(self.place(target), self.objects("pods", "nodes"))
        return Listing(self.source.fetch(Query("envoy", proxy, (path,))))

    # Requests

    def get(self, path: str, user: str = "", headers: dict[str, str] | None = None) -> "Page":
        """One request through the front door, as the client, and its answer; ``user`` goes into the login cookie."""
        from bookinfo_lab.show.page import Page

        fields = [f"{key}: {value}" for key, value in (headers or {}).items()]
        fields = [f"Cookie: user={user}", *fields] if user else fields
        return Page(self.source.fetch(Query("get", places.CLIENT, (path, *fields))))

    @contextmanager
    def capture(self, *points: str) -> Iterator["Capture"]:
        """Capture packets at ``TARGET[:eth0|lo|veth]`` as long as the ``with`` block lasts."""
        from bookinfo_lab.show.capture import Capture

        resolved = tuple(dict.fromkeys(self.point(item) for item in points))
        with self.source.capture(resolved) as running:
            yield Capture(running, resolved)

    def point(self, text: str) -> str:
        """A capture point in full: ``TARGET`` resolved, ``eth0`` where no interface is named."""
        target, _, interface = text.partition(":")
        interface = interface or "eth0"
        if interface not in base.INTERFACES:
            raise LabError(f"{text!r}: no capture point {interface!r}; choose one of: {', '.join(base.INTERFACES)}")
        return f"{self.place(target)}:{interface}"

    # Keeping and learning

    def record(self, path: str) -> "Contents":
        """Write a redacted recording of everything to the new folder (or .zip) ``path``; what it holds."""
        from bookinfo_lab.sources import recording

        return recording.record(self.source, path)

    def check(self, exercise: str, answer: Any = None) -> "Verdict":
        """Whether ``answer`` solves an exercise such as ``"01-2"``, recomputed from this lab as it is now."""
        from bookinfo_lab.teach import checks

        return checks.check(self, exercise, answer)

    def progress(self) -> "Progress":
        """Which exercises were solved so far, when and on which source; ``teach.progress.reset()`` forgets them."""
        from bookinfo_lab.teach import progress

        return progress.solved()

    def choose_pod(self, function: Callable[[str], Any]) -> "Chooser":
        """A list of the pods to choose from; ``function`` is called with the chosen one, and its answer shown."""
        from bookinfo_lab.show.choose import choose

        known = places.places(self.objects("pods", "nodes"), has_client=False)
        return choose([str(item) for item in known if item.kind == "pod"], function)

    def close(self) -> None:
        """Let go of the source: a sandbox that `connect` started ends."""
        self.source.close()

    def _facts(self, rules: "Evidence", place: Place) -> "Facts":
        from bookinfo_lab.netfilter import facts, nft_tables

        kinds = ("addresses", "routes", "routing-rules", "sysctls")
        read = [self.source.fetch(Query(kind, place)).text for kind in kinds]
        # What is not installed there, or was not recorded, is None: the walk says what it took for granted.
        nft, legacy = (self._if_there(Query("rules", place, (name,))) for name in ("nft", "iptables-legacy-save"))
        others, unread = None, ""
        if nft is not None:
            said = rules.text + rules.stderr.decode("utf-8", "replace")
            others, unread = nft_tables.beside(rules.query.arguments[0], nft, legacy, said)
        return facts.facts(*read, place=str(place), other_tables=others, unread_tables=unread)

    def _if_there(self, query: Query) -> str | None:
        try:
            return self.source.fetch(query).text
        except LabError:
            return None

    def _listing(self, kind: str, target: str, *arguments: str, container: str = "") -> "Listing":
        from bookinfo_lab.show.listing import Listing

        return Listing(self.fetch(kind, target, *arguments, container=container))

    def _table(self, resource: str) -> "Table":
        from bookinfo_lab.show import tables

        evidence = self.source.fetch(Query("objects", None, (resource,)))
        return tables.of_objects(resource, evidence, self.source.now())
