"""Runs the `ringrl` command with `python -m ringrl`."""

from ringrl.cli.__main__ import entry

if __name__ == "__main__":
    entry()
