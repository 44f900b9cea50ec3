"""A client of examples/digits_service.py, which has to be deployed: it draws digits and has them read.

It needs neither the service's file nor scikit-learn:

    python examples/digits_client.py open-sesame
"""

import sys

import modal

DRAWINGS = """
..:@@... ...@@:.. ....@...
..@@@@:. ...@@@.. ...:@...
.:@..@:. ..:@@:.. ..@@..:.
.:@..:@. .:@@@... ..@@.:@.
.:@..:@. ...@@... .:@@.@:.
.:@..@:. ...@@:.. .:@@@@..
..@:@@.. ...@@:.. ....@@..
..:@@... ...@@@.. ....@...
"""
INK = {".": 0, ":": 8, "@": 16}


def images() -> list[list[int]]:
    """The drawings side by side as images of 64 numbers, row by row."""
    rows = [row.split() for row in DRAWINGS.split("\n") if row]
    return [[INK[mark] for row in rows for mark in row[number]] for number in range(len(rows[0]))]


def main(access_key: str) -> None:
    reader = modal.Cls.from_name("digits", "Reader")()
    print(f"The model is right for {reader.accuracy.remote():.1%} of the digits.")
    print("These are", *reader.read.remote(images(), access_key))


if __name__ == "__main__":
    main(*sys.argv[1:])
