import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.owners import Owner, who_is


def pod(name, ip, *, phase="Running", host_network=False):
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "bookinfo"},
        "spec": {"nodeName": "lab-0", "hostNetwork": host_network, "containers": []},
        "status": {"podIP": ip, "phase": phase},
    }


OBJECTS = [
    {
        "kind": "Node",
        "metadata": {"name": "lab-0"},
        "spec": {"podCIDRs": ["10.244.0.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]},
    },
    {
        "kind": "Service",
        "metadata": {"name": "reviews", "namespace": "bookinfo"},
        "spec": {"clusterIP": "10.96.0.7", "externalIPs": ["192.0.2.1"], "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1", "ipMode": "Proxy"}]}},
    },
    pod("ended", "10.244.0.5", phase="Succeeded"),
    pod("reviews-v1", "10.244.0.5"),
    pod("kube-proxy", "172.18.0.2", host_network=True),
]


@pytest.mark.parametrize(
    ("ip", "owners"),
    [
        ("10.244.0.5", [Owner("Pod", "bookinfo", "reviews-v1", "podIP")]),
        ("10.96.0.7", [Owner("Service", "bookinfo", "reviews", "clusterIP")]),
        ("192.0.2.1", [Owner("Service", "bookinfo", "reviews", "externalIP")]),
        ("198.51.100.1", [Owner("Service", "bookinfo", "reviews", "loadBalancer")]),
        (
            "172.18.0.2",
            [Owner("Node", "", "lab-0", "InternalIP"), Owner("Pod", "bookinfo", "kube-proxy", "hostNetwork")],
        ),
        ("10.244.0.99", [Owner("Node", "", "lab-0", "podCIDR")]),
        ("8.8.8.8", []),
        ("fd00::1", []),
    ],
)
def test_an_address_has_the_owners_that_the_objects_name(ip, owners):
    assert list(who_is(ip, OBJECTS)) == owners


def test_an_owner_reads_as_kubectl_would_name_it():
    assert [str(owner) for owner in who_is("172.18.0.2", OBJECTS)] == ["Node lab-0", "Pod bookinfo/kube-proxy"]


def test_what_is_no_address_is_refused():
    with pytest.raises(LabError, match="'reviews' is not an IP address"):
        who_is("reviews", OBJECTS)


@pytest.mark.data
def test_every_endpoint_of_a_real_mesh_is_owned_by_the_pod_that_its_slice_names(recorded_objects):
    given = recorded_objects("cluster/istio/objects.json")
    checked = 0
    for item in given["items"]:
        for endpoint in (item.get("endpoints") or ()) if item["kind"] == "EndpointSlice" else ():
            if "targetRef" in endpoint:
                names = [owner.name for owner in who_is(endpoint["addresses"][0], given) if owner.kind == "Pod"]
                assert names == [endpoint["targetRef"]["name"]]
                checked += 1
    assert checked > 5
