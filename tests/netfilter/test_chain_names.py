import pytest

from bookinfo_lab.netfilter.chain_names import (
    endpoint_chain,
    service_chain,
    service_port_name,
    service_port_name_2017,
)


@pytest.mark.parametrize(
    ("namespace", "service", "port", "protocol", "chain"),
    [
        ("istio-system", "istio-ingress", "http", "tcp", "KUBE-SVC-JSIH6CCNAROIS6ON"),
        ("default", "kubernetes", "https", "tcp", "KUBE-SVC-NPX46M4PTMTKRN6Y"),
        ("kube-system", "kube-dns", "dns", "udp", "KUBE-SVC-TCOU7JCQXEZGVUNU"),
        ("kube-system", "kube-dns", "dns-tcp", "tcp", "KUBE-SVC-ERIFXISQEP7F7OF4"),
    ],
)
def test_the_names_of_well_known_services_come_out_as_clusters_show_them(namespace, service, port, protocol, chain):
    for named in (service_port_name, service_port_name_2017):
        assert service_chain("SVC", named(namespace, service, port), protocol) == chain


# Names in public write-ups of clusters of 2017 to 2019, whose Service ports have no name.
@pytest.mark.parametrize(
    ("namespace", "service", "chain"),
    [
        ("default", "nginx-svc", "KUBE-SVC-R2VK7O5AFVLRAXSH"),
        ("default", "redis-nodeport-local", "KUBE-SVC-5ETJGCYWCRYR2EKE"),
        ("pg-allen", "super-front", "KUBE-SVC-2OSY6UR3D26KI2IC"),
    ],
)
def test_an_unnamed_port_kept_its_colon_in_2017_and_has_another_chain_today(namespace, service, chain):
    assert service_chain("SVC", service_port_name_2017(namespace, service, ""), "tcp") == chain
    assert service_chain("SVC", service_port_name(namespace, service, ""), "tcp") != chain


def test_an_endpoint_chain_hashes_address_and_port_too():
    name = "istio-system/istio-ingress:http"
    assert endpoint_chain(name, "tcp", "172.20.100.164:80") == "KUBE-SEP-XMEMPNNJN7A5AOTI"
    assert endpoint_chain(name, "tcp", "172.20.100.164:81") != "KUBE-SEP-XMEMPNNJN7A5AOTI"


def test_all_chains_of_a_service_port_share_one_hash():
    chains = [service_chain(kind, "a/b:c", "udp") for kind in ("SVC", "EXT", "SVL", "FW", "XLB")]
    assert len({chain.rpartition("-")[2] for chain in chains}) == 1
    assert all(len(chain) <= 28 for chain in chains)
