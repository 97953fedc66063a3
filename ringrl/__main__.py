"""`python -m ringrl` is the `ringrl` command."""

from ringrl.cli.__main__ import entry

if __name__ == "__main__":
    entry()
