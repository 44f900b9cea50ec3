"""The first program of a container: ``<python> …/sdk/modal/_container/entry.py``.

It only puts `sys.path` in order. The script's own directory must not be on it (its modules would shadow the
user's), the SDK comes first, and the bundled cloudpickle last, so that the image's own wins.
"""

# pathlib would cost a good part of the time that a container takes to start
# ruff: noqa: PTH100, PTH118, PTH120
import os
import sys


def _arrange_path() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sdk = os.path.dirname(os.path.dirname(here))
    vendor = os.path.join(os.path.dirname(sdk), "vendor")
    rest = [entry for entry in sys.path if os.path.abspath(entry) not in (here, sdk, vendor)]
    sys.path[:] = [sdk, *rest, vendor]


if __name__ == "__main__":
    _arrange_path()
    from modal._container import runner

    runner.main()
