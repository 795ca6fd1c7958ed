"""The checks of notebook 00, the lab."""

import ipaddress
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bookinfo_lab.kube.parse import parse
from bookinfo_lab.kube.places import PROXY_CONTAINERS
from bookinfo_lab.teach.checks import Check, Step, as_address, as_number

if TYPE_CHECKING:
    from bookinfo_lab.lab import Lab


def sidecars(lab: "Lab", answer: Any) -> Iterator[Step]:
    """How many pods have a proxy beside their application."""
    number = as_number(answer)
    yield Step("your answer is a whole number", number is not None, "Count pods, and give the count.")
    pods = parse(lab.objects("pods")).pods
    hint = f"READY says how many containers a pod has (`{lab.pods().command}`)."
    yield Step("there are at least that many pods", 0 <= (number or 0) <= len(pods), hint)
    kinds = [{item.name in PROXY_CONTAINERS for item in pod.running_containers} for pod in pods]
    beside = sum(kind == {True, False} for kind in kinds)
    hint = "A gateway has a proxy and no application; the DNS server has an application and no proxy. " + hint
    yield Step("as many pods run a proxy beside an application", number == beside, hint)


def outside_address(lab: "Lab", answer: Any) -> Iterator[Step]:
    """An address of the client, or where the lab has none of the first pod's node, on an interface other than lo."""
    address = as_address(answer)
    yield Step("your answer is an IP address", address is not None, "An address looks like 192.0.2.7.")
    pods = parse(lab.objects("pods")).pods
    place = "client" if lab.source.has_client else "node/" + next(pod.node_name for pod in pods if pod.node_name)
    evidence = lab.fetch("addresses", place)
    own = {
        ipaddress.ip_address(item["local"])
        for link in json.loads(evidence.text)
        for item in link["addr_info"]
        if link["ifname"] != "lo"
    }
    everyone = {address for pod in pods if not pod.host_network for address in pod.pod_ips}
    yield Step("it is no pod's", address not in everyone, "A pod has it: ask lab.who_is.")
    yield Step(f"{place} has it on an interface other than lo", address in own, f"Look: `{evidence.command}`.")


CHECKS: Mapping[str, Check] = {"00-1": sidecars, "00-2": outside_address}
