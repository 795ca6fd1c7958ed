"""What a learner's word means among a cluster's objects."""

from typing import Any

import pytest

from bookinfo_lab.kube import places


def pod(containers: list[str], sidecars: list[str] | None = None, default: str = "") -> dict[str, Any]:
    """A Pod of these containers, and of these init containers that run beside them."""
    annotations = {"kubectl.kubernetes.io/default-container": default} if default else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "p", "annotations": annotations},
        "spec": {
            "nodeName": "n",
            "containers": [{"name": name} for name in containers],
            "initContainers": [{"name": name, "restartPolicy": "Always"} for name in sidecars or ()],
        },
        "status": {"phase": "Running"},
    }


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (pod(["reviews"]), "reviews"),
        (pod(["istio-proxy"]), "istio-proxy"),
        (pod(["istio-proxy", "reviews"]), "reviews"),
        (pod(["reviews"], ["istio-proxy"]), "reviews"),
        (pod(["reviews"], ["vault-agent", "istio-proxy"]), "reviews"),
        (pod(["fluent-bit", "reviews"], default="reviews"), "reviews"),
        (pod(["fluent-bit", "reviews"]), "fluent-bit"),
        (pod(["reviews", "istio-proxy"], default="istio-proxy"), "reviews"),
        (pod(["reviews"], default="gone"), "reviews"),
    ],
)
def test_a_pod_means_the_container_that_kubectl_takes_but_no_proxy_beside_others(
    given: dict[str, Any], meant: str
) -> None:
    assert places.find("p", [given]).container == meant
