"""The sandboxes that the lab offers, as Plans, and the one function that makes a Topology of a Plan.

Pure.  A Plan holds what differs between sandboxes: addresses, names, ports, whether pods are meshed, and
kube-proxy's rule layout.  Nothing in the package is tied to the two scenarios: any Plan comes up.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

from bookinfo_lab.errors import LabError
from bookinfo_lab.sandbox import topology
from bookinfo_lab.sandbox.topology import BOOKINFO_PORT, PROXY_UID, Host, Object, Topology

CLUSTER_DOMAIN = "cluster.local"
PROXY_IMAGE, BOOKINFO_IMAGE, DNS_IMAGE = "bookinfo-lab/proxy", "bookinfo-lab/bookinfo", "bookinfo-lab/dns"
_DEPLOYMENTS: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("details", "v1", {}),
    ("ratings", "v1", {}),
    ("reviews", "v1", {"ENABLE_RATINGS": "false"}),
    ("reviews", "v2", {"ENABLE_RATINGS": "true", "STAR_COLOR": "black"}),
    ("reviews", "v3", {"ENABLE_RATINGS": "true", "STAR_COLOR": "red"}),
    ("productpage", "v1", {}),
)


@dataclass(frozen=True, slots=True)
class Gateway:
    """The front door: its Service's name, namespace, selector and ports, and its pod's labels and command."""

    name: str
    namespace: str
    selector: Mapping[str, str]
    ports: tuple[Mapping[str, Any], ...]
    command: tuple[str, ...]
    uid: int = PROXY_UID
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one sandbox has that another has not.

    ``names`` maps Bookinfo's four roles to Service names; ``addresses`` gives pods (by deployment, such as
    ``reviews-v2``) and Services (by name) their IPs, ``pod_names`` pods their names.  What is not given is
    taken from the ranges in order.
    """

    scenario: str
    hosts: tuple[Host, ...]
    lan: str
    client: str
    pod_cidr: str
    service_cidr: str
    gateway: Gateway
    meshed: bool
    layout: str = "today"
    namespace: str = "default"
    port: int = BOOKINFO_PORT
    names: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)
    pod_names: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[Object, ...] = ()


def article() -> Plan:
    """2017: Istio 0.3's ingress before six pods without sidecars, with the article's own names and addresses."""
    gateway = Gateway(
        name="istio-ingress",
        namespace="istio-system",
        selector={"istio": "ingress"},
        labels={"pod-template-hash": "1361009857"},
        ports=(
            {"name": "http", "port": 80, "targetPort": 80, "nodePort": 6259},
            {"name": "https", "port": 443, "targetPort": 443, "nodePort": 4852},
        ),
        command=("/usr/local/bin/pilot-agent", "proxy", "ingress", "-v", "2"),
        uid=0,
    )
    return Plan(
        scenario="article",
        hosts=(Host("192.168.3.24", "192.168.3.24", "172.20.100.0/24"),),
        lan="192.168.3.0/24",
        client="192.168.3.50",
        pod_cidr="172.20.0.0/16",
        service_cidr="10.68.0.0/16",
        gateway=gateway,
        meshed=False,
        layout="2017",
        addresses={
            "istio-ingress": "10.68.93.55",
            "istio-ingress-pod": "172.20.100.164",
            "productpage-v1": "172.20.100.168",
        },
        pod_names={
            "istio-ingress": "istio-ingress-57b544fd9c-qr7sb",
            "productpage-v1": "productpage-v1-68b86cf77b-s5d4t",
        },
    )


def sidecar() -> Plan:
    """Today's mesh: an ingress gateway and a sidecar in each Bookinfo pod, plain text between them."""
    gateway = Gateway(
        name="istio-ingressgateway",
        namespace="istio-system",
        selector={"app": "istio-ingressgateway", "istio": "ingressgateway"},
        ports=(
            {"name": "status-port", "port": 15021, "targetPort": 15021, "nodePort": 30521},
            {"name": "http2", "port": 80, "targetPort": 8080, "nodePort": 31380},
            {"name": "https", "port": 443, "targetPort": 8443, "nodePort": 31390},
        ),
        command=("/usr/local/bin/pilot-agent", "proxy", "router"),
    )
    return Plan(
        scenario="sidecar",
        hosts=(Host("lab-node", "172.18.0.2", "10.244.0.0/24"),),
        lan="172.18.0.0/16",
        client="172.18.0.100",
        pod_cidr="10.244.0.0/16",
        service_cidr="10.96.0.0/16",
        gateway=gateway,
        meshed=True,
    )


SCENARIOS: Mapping[str, Callable[[], Plan]] = {"article": article, "sidecar": sidecar}


def scenario(name: str) -> Topology:
    """The Topology of a scenario by its name; an unknown name is an error that lists the known ones."""
    if name not in SCENARIOS:
        raise LabError(f"unknown scenario {name!r}; choose one of: {', '.join(sorted(SCENARIOS))}")
    return build(SCENARIOS[name]())


def build(plan: Plan) -> Topology:
    """Every API object and address of ``plan``: pods are spread over its hosts in turn."""
    free = {host.name: _addresses(host.pod_cidr, plan) for host in plan.hosts}
    services = _addresses(plan.service_cidr, plan)
    dns = next(services)
    objects: list[Object] = [topology.node(host) for host in plan.hosts]
    objects += [_namespace(name) for name in dict.fromkeys(("kube-system", plan.gateway.namespace, plan.namespace))]

    def place(index: int, deployment: str) -> tuple[Host, str]:
        if deployment in plan.addresses:
            address = plan.addresses[deployment]
            return _host_with(address, plan), address
        host = plan.hosts[index % len(plan.hosts)]
        return host, next(free[host.name])

    objects += _dns(dns, *place(0, "coredns"))
    for role in ("details", "ratings", "reviews", "productpage"):
        objects.append(_bookinfo_service(plan, role, services))
    for index, (role, version, env) in enumerate(_DEPLOYMENTS):
        objects.append(_bookinfo_pod(plan, role, version, env, *place(index, f"{_name(plan, role)}-{version}")))
    host, address = place(0, f"{plan.gateway.name}-pod")
    objects += _gateway(plan, services, host, address)
    objects += _mesh_policy(plan)
    objects += plan.extra
    front = next(port for port in plan.gateway.ports if port["port"] == 80)
    return Topology(
        scenario=plan.scenario,
        lan=plan.lan,
        client=plan.client,
        hosts=plan.hosts,
        pod_cidr=plan.pod_cidr,
        service_cidr=plan.service_cidr,
        dns_address=dns,
        layout=plan.layout,
        front_door=(plan.gateway.namespace, plan.gateway.name, front["name"]),
        objects=(*objects, *topology.endpoint_slices(objects, assume_ready=True)),
    )


def _addresses(cidr: str, plan: Plan) -> Iterator[str]:
    """Free addresses of a range, from its tenth on: the first ones are the network's, kube-dns is .10."""
    taken = set(plan.addresses.values())
    hosts = IPv4Network(cidr).hosts()
    return (str(address) for number, address in enumerate(hosts, 1) if number >= 10 and str(address) not in taken)


def _host_with(address: str, plan: Plan) -> Host:
    for host in plan.hosts:
        if IPv4Network(f"{address}/32").subnet_of(IPv4Network(host.pod_cidr)):
            return host
    raise LabError(f"no node's pod CIDR holds the pod address {address}; give a node one that does")


def _name(plan: Plan, role: str) -> str:
    return plan.names.get(role, role)


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {}}}


def _dns(cluster_ip: str, host: Host, address: str) -> list[Object]:
    labels = {"k8s-app": "kube-dns"}
    ports = [
        {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "targetPort": 53, "protocol": "TCP"},
    ]
    container = {"name": "dns", "image": DNS_IMAGE, "command": ["bookinfo-lab-dns"], "ports": [{"containerPort": 53}]}
    return [
        topology.service("kube-dns", "kube-system", cluster_ip, ports, selector=labels),
        topology.pod(topology.pod_name("kube-dns", "kube-system"), "kube-system", address, host, labels, [container]),
    ]


def _bookinfo_service(plan: Plan, role: str, free: Iterator[str]) -> Object:
    name = _name(plan, role)
    address = plan.addresses.get(name) or next(free)
    port = {"name": "http", "port": plan.port, "targetPort": plan.port}
    return topology.service(name, plan.namespace, address, [port], selector={"app": name})


def _bookinfo_pod(plan: Plan, role: str, version: str, env: Mapping[str, str], host: Host, address: str) -> Object:
    app = _name(plan, role)
    deployment = f"{app}-{version}"
    variables = {**env, "SERVICE_VERSION": version}
    for other in ("details", "ratings", "reviews"):
        if _name(plan, other) != other or plan.port != BOOKINFO_PORT:
            variables[f"{other.upper()}_HOSTNAME"] = _name(plan, other)
            variables[f"{other.upper()}_SERVICE_PORT"] = str(plan.port)
    container = {
        "name": role,
        "image": f"{BOOKINFO_IMAGE}-{role}",
        # The trailing command keeps the shell as process 1, as the article's `ps` shows it.
        "command": ["/bin/sh", "-c", f"python {role}.py {plan.port}; exit $?"],
        "workingDir": "/opt/microservices",
        "ports": [{"containerPort": plan.port, "protocol": "TCP"}],
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "readinessProbe": {"httpGet": {"path": "/health", "port": plan.port}},
    }
    init = [_istio_init(), _istio_proxy(("/usr/local/bin/pilot-agent", "proxy", "sidecar"), PROXY_UID, True)]
    name = plan.pod_names.get(deployment) or topology.pod_name(deployment, plan.namespace)
    labels = {"app": app, "version": version}
    return topology.pod(name, plan.namespace, address, host, labels, [container], init if plan.meshed else ())


def _istio_init() -> Object:
    ports = "15090,15021,15020"
    options = ["-p", "15001", "-z", "15006", "-u", str(PROXY_UID), "-m", "REDIRECT", "-i", "*", "-b", "*", "-d", ports]
    security = {"runAsUser": 0, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}
    return {
        "name": "istio-init",
        "image": PROXY_IMAGE,
        "command": ["/usr/local/bin/pilot-agent", "istio-iptables", *options],
        "securityContext": security,
    }


def _istio_proxy(command: tuple[str, ...], uid: int, sidecar: bool) -> Object:
    container: Object = {
        "name": "istio-proxy",
        "image": PROXY_IMAGE,
        "command": list(command),
        "securityContext": {"runAsUser": uid, "runAsGroup": uid},
        "ports": [{"containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021}},
    }
    if sidecar:
        container["restartPolicy"] = "Always"
    return container


def _gateway(plan: Plan, free: Iterator[str], host: Host, address: str) -> list[Object]:
    gateway = plan.gateway
    cluster_ip = plan.addresses.get(gateway.name) or next(free)
    container = _istio_proxy(gateway.command, gateway.uid, sidecar=False)
    if not plan.meshed:  # Istio 0.3's ingress: no port of its own for health or metrics
        probe = {"tcpSocket": {"port": gateway.ports[0]["targetPort"]}}
        container |= {"name": "istio-ingress", "ports": [{"containerPort": 80}], "readinessProbe": probe}
    name = plan.pod_names.get(gateway.name) or topology.pod_name(gateway.name, gateway.namespace)
    labels = {**gateway.selector, **gateway.labels}
    return [
        topology.service(
            gateway.name, gateway.namespace, cluster_ip, gateway.ports, selector=gateway.selector, kind="LoadBalancer"
        ),
        topology.pod(name, gateway.namespace, address, host, labels, [container]),
    ]


def _mesh_policy(plan: Plan) -> list[Object]:
    """Bookinfo's Gateway and VirtualService, and the policy that keeps the mesh's inside readable.

    Without a mesh: the Ingress of 2017, which sends every path to productpage.
    """
    if not plan.meshed:
        backend = {"serviceName": _name(plan, "productpage"), "servicePort": plan.port}
        annotations = {"kubernetes.io/ingress.class": "istio"}
        meta = {"name": "gateway", "namespace": plan.namespace, "annotations": annotations}
        return [{"apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": meta, "spec": {"backend": backend}}]
    matches = [{"uri": {"exact": "/productpage"}}, {"uri": {"prefix": "/static"}}, {"uri": {"exact": "/login"}}]
    matches += [{"uri": {"exact": "/logout"}}, {"uri": {"prefix": "/api/v1/products"}}]
    destination = {"host": _name(plan, "productpage"), "port": {"number": plan.port}}
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    selector = {"istio": plan.gateway.selector["istio"]}

    def istio(kind: str, group: str, name: str, namespace: str, spec: Object) -> Object:
        meta = {"name": name, "namespace": namespace}
        return {"apiVersion": f"{group}.istio.io/v1", "kind": kind, "metadata": meta, "spec": spec}

    return [
        istio("PeerAuthentication", "security", "default", "istio-system", {"mtls": {"mode": "DISABLE"}}),
        istio("Gateway", "networking", "bookinfo-gateway", plan.namespace, {"selector": selector, "servers": [server]}),
        istio(
            "VirtualService",
            "networking",
            "bookinfo",
            plan.namespace,
            {
                "hosts": ["*"],
                "gateways": ["bookinfo-gateway"],
                "http": [{"match": matches, "route": [{"destination": destination}]}],
            },
        ),
    ]
