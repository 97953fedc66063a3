"""Compilation for absent clusters, and the compilers' reports."""
