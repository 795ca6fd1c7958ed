"""One HTTP request through a service mesh, explained with evidence."""
