"""A third topology: random names, ports and CIDRs, two nodes.  Nothing may be tied to the two scenarios."""

from collections.abc import Iterator

import pytest
from plans import topology as random_topology

from bookinfo_lab import sandbox
from bookinfo_lab.sandbox import Sandbox, requests, scenarios
from bookinfo_lab.sandbox.topology import Topology

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module", params=[1, 2])
def built(request: pytest.FixtureRequest) -> Iterator[tuple[Sandbox, Topology]]:
    plan = random_topology(request.param)
    made = sandbox.up(plan, f"random-{request.param}", keep=False)
    yield made, plan
    made.down()


def test_it_shares_no_name_or_address_with_the_scenarios(built: tuple[Sandbox, Topology]) -> None:
    def facts(plan: Topology) -> set[str]:
        named = {item["metadata"]["name"] for item in plan.objects if item["kind"] in ("Pod", "Node")}
        return named | {item["status"]["podIP"] for item in plan.objects if item["kind"] == "Pod"} | {plan.client}

    own = facts(built[1])
    assert len(own) > 10
    for name in scenarios.SCENARIOS:
        shared = own & facts(scenarios.scenario(name))
        assert {item for item in shared if not item.startswith("kube-dns")} == set()


def test_the_page_answers_through_every_proxy_of_both_nodes(built: tuple[Sandbox, Topology]) -> None:
    mesh, plan = built
    nodes = {item["spec"]["nodeName"] for item in plan.pods()}
    assert len(nodes) == len(plan.hosts) == 2
    status, _, body = requests.get(mesh, "/productpage")
    assert status == 200
    assert b"Error fetching" not in body


def test_its_journey_has_every_hop_with_both_halves(built: tuple[Sandbox, Topology]) -> None:
    mesh, _ = built
    for _ in range(4):
        found = requests.send(mesh, "/productpage")
        assert found.unpaired == 0
        assert [hop.depth for hop in found.hops] in ([0, 1, 1], [0, 1, 1, 2])
        assert all(hop.status == 200 and hop.received_ms is not None for hop in found.hops)


def test_it_answers_under_the_other_nodes_address_too(built: tuple[Sandbox, Topology]) -> None:
    mesh, plan = built
    _, port = scenarios.topology.front_door(plan, plan.objects)
    for host in plan.hosts:
        with mesh.open_socket(mesh.target("client")) as sender:
            sender.settimeout(5)
            sender.connect((host.address, port))
            sender.sendall(b"GET /productpage HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert sender.recv(64).startswith(b"HTTP/1.1 200")
