"""What the mesh's judge is asked about: a namespace with pods, Services and policies of many kinds, an ingress gateway.

Pure.  `objects` are the API objects to apply; every pod that becomes ready carries the label READY.  CASES are
annotations of pods that differ in their interception only; the proxies of PROXIED run, the others carry ASLEEP.
"""

import json
from typing import Any

import bookinfo as sample

Object = dict[str, Any]
READY, ASLEEP = "bookinfo-lab-test-ready", "bookinfo-lab-test-asleep"
_TRAFFIC = "traffic.sidecar.istio.io/"
_MODE = "sidecar.istio.io/interceptionMode"


def _proxy(**metadata: str) -> dict[str, str]:
    return {"proxy.istio.io/config": json.dumps({"proxyMetadata": metadata})}


CASES: dict[str, dict[str, str]] = {
    "listed": {f"{_TRAFFIC}includeInboundPorts": "8080,9090", f"{_TRAFFIC}excludeOutboundPorts": "3306,5432"},
    "excluded": {
        f"{_TRAFFIC}excludeInboundPorts": "22,8080",
        f"{_TRAFFIC}excludeOutboundIPRanges": "10.96.0.10/32,203.0.113.0/24",
    },
    "ranges": {
        f"{_TRAFFIC}includeOutboundIPRanges": "10.96.0.0/16,192.0.2.7/32",
        f"{_TRAFFIC}includeOutboundPorts": "443",
        f"{_TRAFFIC}excludeInterfaces": "net1,net2",
    },
    "nothing": {f"{_TRAFFIC}includeInboundPorts": "", f"{_TRAFFIC}includeOutboundIPRanges": ""},
    "loopback": {f"{_TRAFFIC}includeOutboundIPRanges": "127.0.0.2/32,10.0.0.0/8"},
    "virtual": {f"{_TRAFFIC}kubevirtInterfaces": "net1,net2"},
    "virtual-ranges": {
        f"{_TRAFFIC}kubevirtInterfaces": "net1,net2",
        f"{_TRAFFIC}includeOutboundIPRanges": "10.96.0.0/16,192.0.2.0/24",
    },
    "tproxy": {_MODE: "TPROXY", **_proxy(ISTIO_META_DNS_CAPTURE="true")},
    "tproxy-listed": {
        _MODE: "TPROXY",
        f"{_TRAFFIC}includeInboundPorts": "8080,9090",
        f"{_TRAFFIC}excludeInterfaces": "net1",
    },
    "dns": _proxy(ISTIO_META_DNS_CAPTURE="true", ISTIO_OUTBOUND_OWNER_GROUPS="1000,2000"),
    "dns-all": _proxy(ISTIO_META_DNS_CAPTURE="true", CAPTURE_ALL_DNS="true", INVALID_DROP="true"),
    "held": {
        "sidecar.istio.io/nativeSidecar": "false",
        "proxy.istio.io/config": json.dumps(
            {
                "holdApplicationUntilProxyStarts": True,
                "proxyMetadata": {"INBOUND_TUNNEL_PORT": "15018", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "1000"},
            }
        ),
    },
}


PROXIED = ("virtual", "tproxy", "dns", "held")


def objects(namespace: str, image: str) -> list[Object]:
    """The namespace and all that is in it."""
    made = {"apiVersion": "v1", "kind": "Namespace"}
    made |= {"metadata": {"name": namespace, "labels": {"istio-injection": "enabled"}}}
    found = [made, *_pods(image), *_services(namespace), *_policies()]
    for item in found[1:]:
        item["metadata"]["namespace"] = namespace
    names = {"productpage", "details", "reviews", "ratings", "productpage-v1", "reviews-v2"}
    books = [item for item in sample.objects(namespace)["items"] if item["metadata"]["name"] in names]
    for item in books:
        if item["kind"] == "Deployment":
            item["spec"]["template"]["metadata"]["labels"][READY] = "yes"
    return [*found, *books]


def _object(group: str, kind: str, name: str, spec: Object, **meta: Any) -> Object:
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name, **meta}, "spec": spec}


def _pod_spec(image: str, **fields: Any) -> Object:
    container = {"name": "app", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "infinity"]}
    return {"terminationGracePeriodSeconds": 1, "containers": [container | fields]}


def _deployment(app: str, version: str, spec: Object, *, ready: bool = True, **annotations: str) -> Object:
    labels = {"app": app, "version": version}
    every = labels | ({READY: "yes"} if ready else {})
    template = {"metadata": {"labels": every, "annotations": annotations}, "spec": spec}
    return _object(
        "apps/v1", "Deployment", f"{app}-{version}", {"selector": {"matchLabels": labels}, "template": template}
    )


def _pods(image: str) -> list[Object]:
    def offering(**ports: int) -> Object:
        found = [{"name": name, "containerPort": number} for name, number in ports.items()]
        return _pod_spec(image, ports=[*found, {"name": "dns", "containerPort": 5353, "protocol": "UDP"}])

    far = {"app": "far", "sidecar.istio.io/inject": "false", "istio-locality": "north.here", READY: "yes"}
    never = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    entry = {"app": "istio-ingressgateway", "istio": "ingressgateway", "sidecar.istio.io/inject": "true"}
    proxy = {"name": "istio-proxy", "image": "auto", "imagePullPolicy": "IfNotPresent"}
    template = {
        "metadata": {"labels": entry | {READY: "yes"}, "annotations": {"inject.istio.io/templates": "gateway"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [proxy]},
    }
    gateway = {"selector": {"matchLabels": entry}, "template": template}
    alone = [_case(image, name, given) for name, given in CASES.items()]
    return [
        *alone,
        _object("v1", "Pod", "far", _pod_spec(image), labels=far),
        _deployment("web", "v1", offering(web=8080, raw=7070)),
        _deployment("web", "v2", offering(web=8080)),
        _deployment("store", "v1", offering()),
        _deployment("late", "v1", _pod_spec(image, readinessProbe=never), ready=False),
        _object("apps/v1", "Deployment", "istio-ingressgateway", gateway),
    ]


def _case(image: str, name: str, annotations: dict[str, str]) -> Object:
    """A pod of a case; where its proxy is not asked, it sleeps: istio-init has written the rules before it starts."""
    spec = _pod_spec(image)
    if name in PROXIED:
        labels = {"app": "rules", READY: "yes"}
    else:
        labels = {"app": "rules", ASLEEP: "yes"}
        annotations = {**annotations, "sidecar.istio.io/nativeSidecar": "false"}
        asleep = {"name": "istio-proxy", "image": "auto", "command": ["sleep", "infinity"]}
        spec["containers"].append({**asleep, "imagePullPolicy": "IfNotPresent"})
    return _object("v1", "Pod", f"rules-{name}", spec, annotations=annotations, labels=labels)


def _service(name: str, app: str, *ports: tuple[str, int, int | str], **spec: Any) -> Object:
    given = [{"name": port, "port": number, "targetPort": target} for port, number, target in ports]
    return _object("v1", "Service", name, {"selector": {"app": app}, "ports": given, **spec})


def _services(namespace: str) -> list[Object]:
    web = _service("web", "web", ("http", 80, "web"), ("tcp-raw", 7000, "raw"), ("what", 9999, 8090))
    web["spec"]["ports"].append({"name": "grpc-x", "port": 7500})
    store = _service("store", "store", ("mongo", 27017, 27017), ("mysql", 3306, 3306), ("https-x", 443, 8443))
    store["spec"]["ports"] += [
        {"name": "y", "port": 8105, "appProtocol": "kubernetes.io/wss"},
        {"name": "dns", "port": 5353, "targetPort": "dns", "protocol": "UDP"},
        {"name": "sctp", "port": 8103, "protocol": "SCTP"},
        {"name": "x", "port": 8104, "appProtocol": "http"},
    ]
    alias = {"type": "ExternalName", "externalName": f"web.{namespace}.svc.cluster.local"}
    return [
        web,
        store,
        _service("here", "web", ("http", 8080, 8080), internalTrafficPolicy="Local"),
        _service("unnamed", "web", ("", 6000, 6000)),
        _service("sticky", "web", ("http", 8081, 8080), sessionAffinity="ClientIP"),
        _service("nobody", "none", ("http", 8082, 8082), ("tcp", 8083, 8083)),
        _service("outside", "web", ("http", 8084, 8084), externalIPs=["192.0.2.77"]),
        _service("near", "web", ("http", 8300, 8300), trafficDistribution="PreferClose"),
        _service("far", "far", ("http", 8301, 8301)),
        _service("late", "late", ("http", 8090, 8090)),
        _service("early", "late", ("http", 8091, 8091), publishNotReadyAddresses=True),
        _service("peers", "web", ("http", 8200, 8200), ("tcp", 8202, 8202), ("what", 8201, 8201), clusterIP="None"),
        _service("itself", "store", ("what", 8203, 8203), clusterIP="None"),
        _object("v1", "Service", "by-hand", {"ports": [{"name": "http", "port": 8085}]}),
        _object("v1", "Service", "elsewhere", {"type": "ExternalName", "externalName": "example.com"}),
        _object("v1", "Service", "alias", alias),
        _service("istio-ingressgateway", "istio-ingressgateway", ("status-port", 15021, 15021), ("http2", 80, 8080)),
    ]


def _istio(kind: str, name: str, group: str = "networking", **spec: Any) -> Object:
    return _object(f"{group}.istio.io/v1", kind, name, spec)


def _to(host: str, weight: int = 0, **fields: Any) -> Object:
    return {"destination": {"host": host, **fields}} | ({"weight": weight} if weight else {})


def _policies() -> list[Object]:
    """Bookinfo's Gateway and VirtualService as in Istio's samples, and policies for web in the mesh and at the door."""
    pages = [{"uri": {"exact": "/productpage"}}, {"uri": {"prefix": "/static"}}, {"uri": {"exact": "/login"}}]
    pages += [{"uri": {"exact": "/logout"}}, {"uri": {"prefix": "/api/v1/products"}}]
    http = {"name": "http", "protocol": "HTTP"}
    jason = [{"headers": {"end-user": {"exact": "jason"}}}]
    jason += [{"uri": {"regex": "/v[0-9]+"}, "method": {"exact": "GET"}, "ignoreUriCase": True}]
    fault = {
        "delay": {"percentage": {"value": 50}, "fixedDelay": "2s"},
        "abort": {"percentage": {"value": 10}, "httpStatus": 503},
    }
    retries = {"attempts": 3, "perTryTimeout": "1s", "retryOn": "5xx"}
    subsets = [
        {"name": "v1", "labels": {"version": "v1"}},
        {"name": "v2", "labels": {"version": "v2"}, "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}},
    ]
    return [
        _istio("PeerAuthentication", "default", "security", mtls={"mode": "DISABLE"}),
        _istio(
            "Gateway",
            "bookinfo-gateway",
            selector={"istio": "ingressgateway"},
            servers=[{"port": {"number": 8080, **http}, "hosts": ["*"]}],
        ),
        _istio(
            "VirtualService",
            "bookinfo",
            hosts=["*"],
            gateways=["bookinfo-gateway"],
            http=[{"match": pages, "route": [_to("productpage", port={"number": 9080})]}],
        ),
        _istio(
            "Gateway",
            "shop",
            selector={"app": "istio-ingressgateway"},
            servers=[{"port": {"number": 8081, **http}, "hosts": ["shop.example.com", "*.shop.example.com"]}],
        ),
        _istio(
            "VirtualService",
            "shop",
            hosts=["shop.example.com"],
            gateways=["shop", "mesh"],
            http=[
                {
                    "route": [
                        _to("web", 80, subset="v1", port={"number": 80}),
                        _to("web", 20, subset="v2", port={"number": 80}),
                    ]
                }
            ],
        ),
        _istio(
            "DestinationRule",
            "web",
            host="web",
            trafficPolicy={"loadBalancer": {"simple": "ROUND_ROBIN"}},
            subsets=subsets,
        ),
        _istio("DestinationRule", "peers", host="peers", subsets=subsets[:1]),
        _istio(
            "VirtualService",
            "web",
            hosts=["web"],
            http=[
                {
                    "name": "jason",
                    "match": jason,
                    "route": [_to("web", subset="v2")],
                    "timeout": "3s",
                    "retries": retries,
                },
                {"match": [{"uri": {"prefix": "/slow"}}], "fault": fault, "route": [_to("web", subset="v1")]},
                {"route": [_to("web", 90, subset="v1"), _to("web", 10, subset="v2")]},
            ],
        ),
        _istio(
            "VirtualService",
            "peers",
            hosts=["peers"],
            http=[{"route": [_to("peers", port={"number": 8200})], "timeout": "1s"}],
        ),
    ]
