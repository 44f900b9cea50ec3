"""The first process of a container: ``python init.py <script>``. It runs the script in a child and waits.

The kernel spares a namespace's first process from signals sent inside it, even SIGKILL by itself, and expects it to
reap orphans. A user's program counts on neither, so it gets to be the second. Exits with the child's status, or with
128 plus the number of the signal that killed it, as shells do. Runs on every Python from 3.9 on.
"""

import os
import signal
import sys

passed_on = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def wait_for(child: int) -> int:
    """Pass signals on to `child` and reap everything until it ends; return the exit status to leave with."""
    for number in passed_on:
        signal.signal(number, lambda received, frame: os.kill(child, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def run(script: str) -> None:
    """Become the main program `script`, as if Python had been started with it."""
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(script)  # noqa: PTH120 - pathlib would cost each start milliseconds
    with open(script, "rb") as file:
        code = compile(file.read(), script, "exec")
    main = sys.modules["__main__"].__dict__
    for name in ("os", "signal", "sys", "wait_for", "run", "child", "passed_on"):
        main.pop(name, None)
    main["__file__"] = script
    main["__doc__"] = None
    exec(code, main)


if __name__ == "__main__":
    # The child may run, and be known to, before there are handlers: what comes until then waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
    child = os.fork()
    if child:
        os._exit(wait_for(child))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
    run(sys.argv[1])
