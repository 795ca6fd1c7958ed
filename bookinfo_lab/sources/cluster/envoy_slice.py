"""An answer of Envoy's admin cut down to the recorded Services, without certificates and what its agent was told.

Pure.  istiod gives every sidecar the clusters, endpoints, listeners and routes of all namespaces: those that are named
for others go, in each answer by the same names, so that the answers still agree.  Of secrets the names stay, of the
bootstrap's metadata the keys.  What is no JSON is read line by line.
"""

import json
import re
from typing import Any

from bookinfo_lab.sources.cluster.scope import Scope

_LEFT_OUT = "left out of the recording"
_METADATA = frozenset(
    {"NAME", "NAMESPACE", "LABELS", "WORKLOAD_NAME", "INSTANCE_IPS", "ISTIO_VERSION", "INTERCEPTION_MODE"}
)
_CONTENT = frozenset({"inline_bytes", "inline_string"})
_CERTIFIED = frozenset({"certificate_chain", "private_key", "trusted_ca", "crl", "ocsp_staple", "session_ticket_keys"})
_NAMED_BY = ("cluster", "endpoint_config", "listener", "route_config")
_PORT = re.compile(r"\d{1,5}")


def sliced(raw: bytes, scope: Scope) -> tuple[bytes, int, int]:
    """The answer, how many things of others went, and how many secrets, certificates and settings."""
    if raw[:1] == b"{":
        try:
            document = json.loads(raw)
        except ValueError:
            pass  # not JSON after all
        else:
            slicer = _Slicer(scope)
            made = slicer.node(document)
            text = json.dumps(made, ensure_ascii=False, indent=1)
            return text.encode() + b"\n", slicer.gone, slicer.hidden
    lines = raw.decode("utf-8", "surrogateescape").splitlines(keepends=True)
    kept = [line for line in lines if not (scope.is_foreign(line) or scope.counts_others(line))]
    return "".join(kept).encode("utf-8", "surrogateescape"), len(lines) - len(kept), 0


class _Slicer:
    """One document; ``gone`` and ``hidden`` count."""

    def __init__(self, scope: Scope) -> None:
        self._scope, self.gone, self.hidden = scope, 0, 0

    def node(self, node: Any, key: str = "") -> Any:
        if isinstance(node, list):
            kept = [item for item in node if not self._is_foreign(item, key)]
            self.gone += len(node) - len(kept)
            return [self.node(item, key) for item in kept]
        if not isinstance(node, dict):
            return node
        if "certificates" in node and not key:
            self.hidden += len(node["certificates"])
            node = {**node, "certificates": []}
        if key == "node" and isinstance(node.get("metadata"), dict):
            node = {**node, "metadata": self._settings(node["metadata"])}
        if key == "secret" or (key in _CERTIFIED and node.keys() & _CONTENT):
            self.hidden += 1
            return {name: value if name in ("@type", "name") else _LEFT_OUT for name, value in node.items()}
        return {name: self.node(value, name) for name, value in node.items()}

    def _settings(self, metadata: dict[str, Any]) -> dict[str, Any]:
        self.hidden += len(metadata.keys() - _METADATA)
        return {name: value if name in _METADATA else _LEFT_OUT for name, value in metadata.items()}

    def _is_foreign(self, item: Any, key: str) -> bool:
        """Whether an item of a list is a cluster, endpoint, listener, route or virtual host of another Service."""
        if not isinstance(item, dict):
            return False
        if key == "virtual_hosts":
            return self._is_foreign_host(item)
        if key in ("cluster_statuses", "listener_statuses"):
            return self._scope.is_foreign(str(item.get("name", "")))
        inner: dict[str, Any] = next((item[name] for name in _NAMED_BY if isinstance(item.get(name), dict)), {})
        if isinstance(item.get("active_state"), dict):
            inner = item["active_state"].get("listener", {})
        name = str(item.get("name") or inner.get("name") or inner.get("cluster_name") or "")
        if "route_config" in item and _PORT.fullmatch(name):
            return not self._scope.has_port(int(name))
        is_config = bool(inner) or key.startswith("dynamic_listeners")
        return is_config and self._scope.is_foreign(name)

    def _is_foreign_host(self, host: dict[str, Any]) -> bool:
        """A virtual host is of the Service that names it; one that no Service names, of those it sends to."""
        name = str(host.get("name", ""))
        return self._scope.is_foreign(name if ".svc" in name else json.dumps(host))
