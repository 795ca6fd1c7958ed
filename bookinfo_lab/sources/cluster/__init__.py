"""Evidence from a Kubernetes cluster of the reader's own, as a guest: what is there is read, what is made is said."""
