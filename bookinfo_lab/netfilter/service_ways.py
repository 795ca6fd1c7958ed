"""What the chains behind an entry of a Service come to: ways to endpoints, and refusals.

Pure; `service_chains` reads them from rules, `service_paths` gives them names.
"""

from dataclasses import dataclass

from bookinfo_lab.kube.fields import Address

from .rule import Rule


@dataclass(frozen=True, slots=True)
class Entry:
    """What a packet to a Service has: ``address`` (None: one of the node's own), ``protocol``, ``port``."""

    address: Address | None
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class PathEndpoint:
    """An endpoint behind an entry; ``probability`` is that of a new connection among those that take this way.

    ``hairpin`` says whether what comes from the endpoint's own address is masqueraded.
    """

    ip: str
    port: int
    probability: float
    chain: str
    hairpin: bool


@dataclass(frozen=True, slots=True)
class Way:
    """Where packets go for which all of ``when`` holds (empty: all that are left).

    Conditions are of the source unless they say otherwise: a range, ``this node``, each with ``not`` before it or not.
    ``masquerade`` is whose source address is changed: ``always``, ``from outside RANGE`` (and a pod's that reaches
    itself), ``from this node``, ``hairpin only`` (a pod's that reaches itself), ``never``.  ``chain`` holds the rules
    that choose among ``endpoints``.
    """

    when: tuple[str, ...]
    masquerade: str
    chain: str
    endpoints: tuple[PathEndpoint, ...]
    affinity_s: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """``verdict`` is DROP or REJECT, ``answer`` what a REJECT sends back, ``why`` the rule's comment."""

    verdict: str
    answer: str
    why: str
    where: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of one entry; `ServicePath` says what each part means."""

    ways: tuple[Way, ...]
    refusals: tuple[Refusal, ...]
    chains: tuple[str, ...]
    rules: tuple[Rule, ...]
    source_ranges: tuple[str, ...]
    unclear: tuple[str, ...]
