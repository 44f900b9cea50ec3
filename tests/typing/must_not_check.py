"""Uses of the API that must not type-check: each line with a comment is an error of that code, and no other line is."""

from __future__ import annotations

import modal
from modal.functions import gather

app = modal.App("typed")


@app.function()
def add(x: int, y: str = "") -> float:
    return x + len(y)


@app.cls()
class Model:
    @modal.method()
    def predict(self, x: int) -> float:
        return x


@app.local_entrypoint()
def main(count: int = 3) -> None: ...


add.remote("one")  # arg-type
add.remote()  # call-arg
add.remote(1, z=2)  # call-arg
add.local(1, 2)  # arg-type
add.spawn(x="1")  # arg-type
text: str = add.remote(1)  # assignment
main("x")  # arg-type
app.function(cpu="many")  # arg-type
app.function(colour=1)  # call-arg
add.keep_warm("2")  # arg-type
add.spawn(1).get(timeout="1")  # arg-type
add.spawn(1).cancel("yes")  # arg-type
number: int = add.spawn(1).get()  # assignment
gather(1)  # arg-type
modal.FunctionCall.from_id(1)  # arg-type
modal.Retries(2)  # misc
Model().predict.remote("x")  # arg-type
Model().predict.remote()  # call-arg
label: str = Model().predict.remote(1)  # assignment
app.cls(colour=1)  # call-arg
modal.Cls.from_name("app", "Model").with_options(cpu="many")  # arg-type
modal.method(is_generator="yes")  # arg-type
