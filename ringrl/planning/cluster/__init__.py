"""Specifications of clusters, their devices, and the locations of their compilers."""
