"""Planning of training on a cluster with its own compilers, without the cluster."""
