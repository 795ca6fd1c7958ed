"""What kube-proxy's rules promise, asked of the kernel: two nodes, plain pods, both rule layouts."""

import collections
from collections.abc import Iterator

import pytest
from asking import Listeners
from plans import random_plan

from bookinfo_lab import sandbox
from bookinfo_lab.errors import LabError
from bookinfo_lab.sandbox import Sandbox, scenarios, topology
from bookinfo_lab.sandbox.targets import Target

pytestmark = pytest.mark.sandbox
PORT = 7000


class World:
    """A two-node sandbox with plain pods, and the parts of it that the tests name."""

    def __init__(self, mesh: Sandbox, plan: scenarios.Plan) -> None:
        self.mesh, self.plan = mesh, plan
        self.nodes = {host.name: host.address for host in plan.hosts}
        targets = mesh.targets()
        self.client = next(item for item in targets if item.kind == "client")
        self.node = {item.name: item for item in targets if item.kind == "node"}
        pods = [item for item in mesh.objects() if item["kind"] == "Pod" and "app" in item["metadata"]["labels"]]
        self.pods = [item for item in pods if item["metadata"]["namespace"] == plan.namespace]
        self.place = {item["metadata"]["name"]: item["spec"]["nodeName"] for item in self.pods}
        self.address = {item["metadata"]["name"]: item["status"]["podIP"] for item in self.pods}
        self.target = {item.name: item for item in targets if item.kind == "pod"}
        self.label = {item["metadata"]["name"]: item["metadata"]["labels"] for item in self.pods}

    def on(self, node: str) -> list[str]:
        """The application pods of one node."""
        return [name for name, place in self.place.items() if place == node]

    def service(self, selector: dict[str, str], **spec: object) -> tuple[str, int]:
        """Apply a Service onto PORT of the selected pods; its ClusterIP and node port."""
        cluster_ip = self.plan.service_cidr.rsplit(".", 1)[0] + ".200"
        port = {"name": "x", "port": 80, "targetPort": PORT, "nodePort": 32001}
        self.mesh.apply(
            [
                topology.service(
                    "asked", self.plan.namespace, cluster_ip, [port], selector=selector, kind="NodePort", **spec
                )
            ]
        )
        return cluster_ip, 32001


@pytest.fixture(scope="module", params=["today", "2017"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    plan = random_plan(20, meshed=False, layout=request.param)
    mesh = sandbox.up(scenarios.build(plan), f"promises-{request.param}", keep=False)
    yield World(mesh, plan)
    mesh.down()


def one_pod(world: World) -> tuple[str, str, str, dict[str, str]]:
    """A pod, its node, the other node, and a selector that fits this pod alone."""
    here, there = world.nodes
    pod = next(name for name in world.on(there) if world.label[name]["version"] == "v1")
    return pod, there, here, world.label[pod]


def test_a_cluster_ip_leads_a_pod_to_the_endpoint_and_keeps_its_address(world: World) -> None:
    pod, _, other_node, selector = one_pod(world)
    cluster_ip, _ = world.service(selector)
    asker = world.on(other_node)[0]
    with Listeners(world.mesh, [world.target[pod]], PORT) as listeners:
        arrived = listeners.connect(world.target[asker], cluster_ip, 80)
    assert arrived.pod == pod
    assert arrived.seen_source == world.address[asker]


def test_a_node_port_of_any_node_leads_the_client_there_with_that_nodes_address(world: World) -> None:
    pod, _, _, selector = one_pod(world)
    _, node_port = world.service(selector)
    with Listeners(world.mesh, [world.target[pod]], PORT) as listeners:
        for address in world.nodes.values():
            arrived = listeners.connect(world.client, address, node_port)
            assert arrived.seen_source == address
            assert arrived.own_source == world.plan.client


def test_a_node_reaches_a_cluster_ip_and_its_own_node_port_also_on_127_0_0_1(world: World) -> None:
    pod, _, other_node, selector = one_pod(world)
    cluster_ip, node_port = world.service(selector)
    node = world.node[other_node]
    with Listeners(world.mesh, [world.target[pod]], PORT) as listeners:
        for address, port in ((cluster_ip, 80), (world.nodes[other_node], node_port), ("127.0.0.1", node_port)):
            assert listeners.connect(node, address, port).seen_source == world.nodes[other_node]


def test_a_pod_reaches_itself_through_its_service_and_sees_its_node_as_the_source(world: World) -> None:
    pod, node, _, selector = one_pod(world)
    cluster_ip, _ = world.service(selector)
    with Listeners(world.mesh, [world.target[pod]], PORT) as listeners:
        arrived = listeners.connect(world.target[pod], cluster_ip, 80)
    assert arrived.own_source == world.address[pod]
    assert arrived.seen_source == world.nodes[node]


def test_a_service_without_endpoints_refuses(world: World) -> None:
    cluster_ip, node_port = world.service({"app": "nobody"})
    with Listeners(world.mesh, [], PORT) as listeners:
        for source, address, port in (
            (next(iter(world.node.values())), cluster_ip, 80),
            (world.client, next(iter(world.nodes.values())), node_port),
        ):
            with pytest.raises(ConnectionRefusedError):
                listeners.connect(source, address, port)
        # kube-proxy of 2017 rejects in INPUT and OUTPUT only: what a node forwards for a pod stays unanswered.
        unanswered = TimeoutError if world.plan.layout == "2017" else ConnectionRefusedError
        with pytest.raises(unanswered):
            listeners.connect(world.target[next(iter(world.address))], cluster_ip, 80, timeout_s=0.5)


def test_external_traffic_policy_local_keeps_the_source_and_drops_where_no_endpoint_is(world: World) -> None:
    pod, node, other_node, selector = one_pod(world)
    _, node_port = world.service(selector, externalTrafficPolicy="Local")
    with Listeners(world.mesh, [world.target[pod]], PORT) as listeners:
        assert listeners.connect(world.client, world.nodes[node], node_port).seen_source == world.plan.client
        with pytest.raises(TimeoutError):
            listeners.connect(world.client, world.nodes[other_node], node_port, timeout_s=0.5)


def test_three_endpoints_each_get_a_third(world: World) -> None:
    reviews = {"app": world.plan.names["reviews"]}
    pods = [name for name, labels in world.label.items() if labels["app"] == reviews["app"]]
    cluster_ip, _ = world.service(reviews)
    asker = next(target for name, target in world.target.items() if name not in pods)
    with Listeners(world.mesh, [world.target[name] for name in pods], PORT) as listeners:
        seen = collections.Counter(listeners.connect(asker, cluster_ip, 80).pod for _ in range(300))
    assert set(seen) == set(pods)
    chi_square = sum((count - 100) ** 2 / 100 for count in seen.values())
    assert chi_square < 18.4, seen  # two degrees of freedom, one false alarm in ten thousand runs


def test_session_affinity_keeps_a_client_at_one_endpoint(world: World) -> None:
    reviews = {"app": world.plan.names["reviews"]}
    pods = [name for name, labels in world.label.items() if labels["app"] == reviews["app"]]
    timeout = {"clientIP": {"timeoutSeconds": 100}}
    cluster_ip, _ = world.service(reviews, sessionAffinity="ClientIP", sessionAffinityConfig=timeout)
    askers: list[Target] = [target for name, target in world.target.items() if name not in pods][:3]
    with Listeners(world.mesh, [world.target[name] for name in pods], PORT) as listeners:
        for asker in askers:
            assert len({listeners.connect(asker, cluster_ip, 80).pod for _ in range(12)}) == 1


def test_a_deleted_service_answers_no_more(world: World) -> None:
    pod, _, _, selector = one_pod(world)
    _, node_port = world.service(selector)
    world.mesh.delete("Service", world.plan.namespace, "asked")
    with Listeners(world.mesh, [world.target[pod]], PORT) as listeners, pytest.raises(ConnectionRefusedError):
        listeners.connect(world.client, next(iter(world.nodes.values())), node_port)


def test_a_target_port_may_be_the_name_of_a_container_port(world: World) -> None:
    mesh, namespace = world.mesh, world.plan.namespace
    cluster_ip = world.plan.service_cidr.rsplit(".", 1)[0] + ".201"
    pod = next(item for item in world.pods if item["metadata"]["labels"]["app"] == world.plan.names["details"])
    selector = {"app": world.plan.names["details"]}
    wrong = topology.service("named", namespace, cluster_ip, [{"port": 80, "targetPort": "web"}], selector=selector)
    with pytest.raises(LabError, match="no selected pod has a container port named 'web'"):
        mesh.apply([wrong])
    (container,) = pod["spec"]["containers"]
    named = {**container, "ports": [{"name": "web", "containerPort": PORT}]}
    mesh.apply([{**pod, "spec": {**pod["spec"], "containers": [named]}}, wrong])
    asker = next(target for name, target in world.target.items() if name in world.on(pod["spec"]["nodeName"]))
    with Listeners(mesh, [world.target[pod["metadata"]["name"]]], PORT) as listeners:
        assert listeners.connect(asker, cluster_ip, 80).pod == pod["metadata"]["name"]


def test_an_object_that_is_applied_again_keeps_its_place(world: World) -> None:
    before = [item["metadata"]["name"] for item in world.mesh.objects() if item["kind"] == "Service"]
    world.mesh.apply([item for item in world.mesh.objects() if item["metadata"]["name"] == before[0]][:1])
    assert [item["metadata"]["name"] for item in world.mesh.objects() if item["kind"] == "Service"] == before
