"""Handling of Ctrl-C in the quickstart's script."""

import os
import signal
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "experiments" / "quickstart" / "run.py"
SLOW_TO_STOP = """
import os, signal, sys, time
def stop(*_):
    time.sleep(1.0)  # as long as saving may take
    os.write(1, b"saved\\n")  # print may be at work when the signal comes
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
print("ready", flush=True)
time.sleep(60)
"""


def test_ctrl_c_waits_for_the_command_to_save() -> None:
    program = (
        f"import runpy, sys; script = runpy.run_path({str(SCRIPT)!r}); "
        f"sys.exit(script['run_to_its_end']([sys.executable, '-c', {SLOW_TO_STOP!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the script and to the command
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert out == "saved\n"
    assert process.returncode == 130


def test_the_command_hears_ctrl_c_by_default() -> None:
    """A command started with SIGINT ignored would not stop before its training begins."""
    program = (
        f"import runpy, sys; script = runpy.run_path({str(SCRIPT)!r}); sys.exit(script['run_to_its_end']("
        "[sys.executable, '-c', 'import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)']))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
