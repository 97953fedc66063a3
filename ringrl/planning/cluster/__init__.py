"""Clusters that are not here: their figures, their devices, and where their compilers are installed."""
