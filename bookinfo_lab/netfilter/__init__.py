"""iptables rules: what kube-proxy, the kubelet and Istio write.  Pure: standard library and `kube` only."""
