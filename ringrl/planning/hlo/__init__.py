"""Compiled programs, read: what runs, what travels, and what lies in memory."""
