"""Classes in real containers: their life, their parameters, and what people see of it."""

from __future__ import annotations

import signal

import pytest
from acceptance_harness import Platform, Program

pytestmark = pytest.mark.e2e

MODEL = """
    import os, signal
    import modal

    app = modal.App("model")

    @app.cls(container_idle_timeout=2)
    class Model:
        size: int = modal.parameter(default=2)
        name: str = modal.parameter(default="x")

        @modal.enter()
        def start(self):
            self.calls = 0
            print(f"enter {self.name} {self.size}")

        @modal.method()
        def predict(self, x: int):
            self.calls += 1
            return f"{self.name} {x * self.size} {self.calls}"

        @modal.method()
        def values(self, n: int = 2):
            for number in range(n):
                yield number * self.size

        @modal.method()
        def preempt(self):
            os.kill(os.getpid(), signal.SIGTERM)

        @modal.exit()
        def stop(self):
            print(f"exit {self.name} {self.calls}")
"""


def test_an_instance_lives_as_long_as_its_container(platform: Platform, program: Program) -> None:
    path = program(
        MODEL
        + """
    @app.local_entrypoint()
    def main():
        model = Model()
        print(model.predict.remote(1), model.predict.remote(2), sorted(model.predict.map([3]))[0])
        print(Model(name="y", size=5).predict.remote(1), list(Model(size=3).values.remote_gen(3)))
    """
    )
    ran = platform.modal("run", path).succeeded()
    lines = sorted(ran.out.splitlines())
    assert lines == sorted(
        [
            "enter x 2",
            "x 2 1 x 4 2 x 6 3",
            "enter y 5",
            "enter x 3",
            "y 5 1 [0, 3, 6]",
            "exit x 3",
            "exit y 1",
            "exit x 0",
        ]
    )


def test_exit_hooks_run_on_scale_down_and_preemption(platform: Platform, program: Program) -> None:
    path = program(
        MODEL
        + """
    @app.local_entrypoint()
    def main():
        import time
        call = Model(name="p").preempt.spawn()
        Model(name="s").predict.remote(1)
        while Model(name="s").predict.get_current_stats().num_total_runners:
            time.sleep(0.1)
        print("scaled down")
        call.cancel()
    """
    )
    ran = platform.modal("run", path).succeeded()
    lines = ran.out.splitlines()
    assert lines.index("exit s 1") < lines.index("scaled down")
    assert "exit p 0" in lines


def test_a_method_is_run_by_name_with_options_of_class_and_method(platform: Platform, program: Program) -> None:
    path = program(MODEL)
    ran = platform.modal("run", f"{path}::Model.predict", "--x", "4", "--name", "z").succeeded()
    assert "z 8 1" in ran.out.splitlines()
    assert "Model(name='z'): starting 1 container" in ran.err
    assert "0\n2\n4\n" in platform.modal("run", "-q", f"{path}::Model.values", "--n", "3").succeeded().out
    shown = platform.modal("run", f"{path}::Model.predict", "--help").succeeded().out
    assert "--size INTEGER" in shown
    assert "--x INTEGER" in shown
    platform.modal("run", f"{path}::Model").failed_with_one_sentence("`Model` is a class", "`Model.predict`", code=2)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("raise LookupError('no weights')", ""),
        ("raise SystemExit(3)", "The enter hook Model.start called sys.exit(3)"),
        ("import os; os._exit(4)", "exited with status 4"),
        ("import time; time.sleep(60)", "The enter hook Model.start ran longer than the timeout of 1 s"),
    ],
)
def test_an_enter_hook_that_fails_is_shown_with_its_name(
    platform: Platform, program: Program, how: str, sentence: str
) -> None:
    path = program(
        f"""
        import modal
        app = modal.App("failing")

        @app.cls(timeout=1)
        class Model:
            @modal.enter()
            def start(self):
                {how}

            @modal.method()
            def run(self): ...
        """
    )
    ran = platform.modal("run", f"{path}::Model.run")
    if sentence:
        ran.failed_with_one_sentence(sentence)
    else:
        ran.failed_with_traceback("LookupError: no weights", "the enter hook Model.start", "in start")


def test_classes_of_imported_modules_and_serialized_ones(platform: Platform, program: Program) -> None:
    program("", "shop/__init__.py")
    program(
        """
        import modal
        from .names import NAME

        app = modal.App("parts")

        @app.cls()
        class Imported:
            @modal.method()
            def tell(self):
                return NAME, __name__
        """,
        "shop/parts.py",
    )
    program("NAME = 'shop'\n", "shop/names.py")
    program(
        """
        import modal
        from shop.parts import Imported, app as parts

        app = modal.App("main")
        app.include(parts)

        def make():
            @app.cls(serialized=True)
            class Local:
                word: str = modal.parameter()

                @modal.method()
                def tell(self):
                    return self.word, Imported().tell.remote()
            return Local

        Local = make()

        @app.local_entrypoint()
        def main():
            print(Imported().tell.remote(), Local(word="w").tell.remote())
        """,
        "shop/main.py",
    )
    ran = platform.modal("run", "-m", "shop.main", cwd=program.folder).succeeded()
    assert ran.out == "('shop', 'shop.parts') ('w', ('shop', 'shop.parts'))\n"


def test_build_methods_run_once_for_their_code(platform: Platform, program: Program) -> None:
    def text(word: str, other: int) -> str:
        return f"""
        import os
        import modal
        from weights import WEIGHTS

        app = modal.App("built")

        @app.cls(secrets=[modal.Secret.from_dict({{"WORD": "sword"}})])
        class Model:
            @modal.build()
            @modal.enter()
            def download(self):
                if not os.path.exists("/weights"):
                    print("fetching the weights", flush=True)
                    with open("/weights", "w") as file:
                        file.write("{word} " + WEIGHTS + os.environ["WORD"] + str(modal.is_local()))

            @modal.build(timeout=60)
            async def more(self):
                os.mkdir("/more")

            @modal.method()
            def read(self):
                return open("/weights").read(), os.path.isdir("/more"), {other}
        """

    program("WEIGHTS = 'heavy'\n", "weights.py")
    ran = platform.modal("run", f"{program(text('a', 1))}::Model.read").succeeded()
    assert ran.out == "('a heavyswordFalse', True, 1)\n"
    assert "fetching the weights" in ran.err
    ran = platform.modal("run", f"{program(text('a', 2))}::Model.read").succeeded()
    assert ran.out == "('a heavyswordFalse', True, 2)\n"
    assert "fetching the weights" not in ran.err
    ran = platform.modal("run", f"{program(text('b', 2))}::Model.read").succeeded()
    assert ran.out == "('b heavyswordFalse', True, 2)\n"


def test_a_build_method_that_fails_is_shown_with_its_name(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("broken")

        @app.cls()
        class Model:
            @modal.build()
            def download(self):
                raise ConnectionError("no route to the weights")

            @modal.method()
            def read(self): ...
        """
    )
    ran = platform.modal("run", f"{path}::Model.read")
    assert ran.code == 1
    assert "ConnectionError: no route to the weights" in ran.err
    assert "The build step Model.download failed" in ran.err
    ran.shows_no_frame_of_ours()


def test_a_deployed_class_is_used_by_other_programs(platform: Platform, program: Program) -> None:
    platform.modal("deploy", program(MODEL, "model.py")).succeeded()
    user = program(
        """
        import modal
        app = modal.App("user")

        @app.function()
        def inside():
            return modal.Cls.from_name("model", "Model")(name="in").predict.remote(1)

        @app.local_entrypoint()
        def main():
            fast = modal.Cls.lookup("model", "Model").with_options(cpu=0.5)
            print(fast(name="out", size=3).predict.remote(2))
            print(inside.remote())
            print(modal.Function.from_name("model", "Model.predict").remote(5))
        """
    )
    try:
        assert platform.modal("run", user).succeeded().out == "out 6 1\nin 2 1\nx 10 1\n"
    finally:
        platform.modal("app", "stop", "model").succeeded()


def test_exit_hooks_run_when_the_program_is_interrupted(platform: Platform, program: Program) -> None:
    path = program(
        MODEL
        + """
    @app.local_entrypoint()
    def main():
        import time
        Model().predict.remote(1)
        print("waiting", flush=True)
        time.sleep(60)
    """
    )
    with platform.background("modal", "run", path, PYTHONUNBUFFERED="1") as running:
        running.wait_for("waiting")
        running.send(signal.SIGINT)
        ended = running.end()
    assert "exit x 1" in ended.out
    assert ended.code == 130


def test_build_methods_of_a_serialized_class_run_too(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("built-serialized")
        word = "sword"

        def make():
            @app.cls(serialized=True, image=modal.Image.debian_slim(python_version="3.11"))
            class Model:
                @modal.build(force=True)
                def download(self):
                    with open("/weights", "w") as file:
                        file.write(word)

                @modal.method()
                def read(self):
                    return open("/weights").read()
            return Model

        Model = make()

        @app.local_entrypoint()
        def main():
            print(Model().read.remote())
        """
    )
    assert platform.modal("run", path).succeeded().out == "sword\n"
    ran = platform.modal("run", path).succeeded()
    assert "build Model.download" in ran.err  # forced
