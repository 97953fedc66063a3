"""Figures of plans, and the contexts that the paper reports."""
