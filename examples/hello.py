"""The first program: one function, called here, called in a container, and mapped over a thousand inputs.

Run it with: modal run examples/hello.py
"""

import sys

import modal

app = modal.App("hello")


@app.function()
def square(x: int) -> int:
    if x % 250 == 0:
        print(f"squaring {x}")
        print(f"a line on stderr for {x}", file=sys.stderr)
    return x * x


@app.local_entrypoint()
def main(count: int = 1000):
    print("local: ", square.local(12))
    print("remote:", square.remote(12))
    print("map:   ", sum(square.map(range(count))))
