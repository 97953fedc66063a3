"""What a cluster's own compilers say of a program, without the cluster."""
