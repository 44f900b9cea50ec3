"""What people see of buildah's output."""

from __future__ import annotations

from intermodal.builder.build_log import StepLog, failure_text


class Log:
    def __init__(self) -> None:
        self.text = ""

    def step(self, title: str) -> None:
        raise AssertionError("steps are announced elsewhere")

    def write(self, text: str) -> None:
        self.text += text


OUTPUT = [
    "STEP 1/3: FROM 0cc7f36fa2a1\n",
    "STEP 2/3: RUN . /run/intermodal-variables/environment.sh; one\n",
    "output of one\n",
    "--> 098e03a3cf9\n",
    "--> Using cache 0cc7f36fa2a1ae4895093f26c3a05604ac4e3dfaf5541af58e9b484061c7a35a\n",
    'STEP 3/3: RUN . /run/intermodal-variables/environment.sh; echo "x": "y"\n',
    "output of two\n",
]


def test_steps_have_the_titles_that_people_gave_them() -> None:
    log = Log()
    steps = StepLog(log, ("one", "two"), quiet=False)
    for line in OUTPUT:
        steps.line(line)
    assert log.text == "=> one\noutput of one\n=> two\noutput of two\n"
    assert steps.current == "two"
    assert steps.tail == ["output of two\n"]


def test_an_error_is_told_without_our_additions() -> None:
    log = Log()
    steps = StepLog(log, ("one", "two"), quiet=True)
    error = 'Error: error building at STEP "RUN . /run/intermodal-variables/environment.sh; echo "x": "y"": '
    for line in [*OUTPUT, error + "error while running runtime: exit status 3\n"]:
        steps.line(line)
    assert log.text.endswith("output of two\nThe step ended with exit status 3.\n")
    steps.line(error + 'stat "nothere": no such file\n')
    assert steps.tail[-1] == 'stat "nothere": no such file\n'


def test_only_the_end_of_long_output_is_in_the_message() -> None:
    steps = StepLog(Log(), ("one",), quiet=True)
    steps.line("STEP 2/2: RUN x\n")
    for number in range(100):
        steps.line(f"line {number}\n")
    message = failure_text("one", steps.tail)
    assert message.startswith("Image build failed at: one\nline 70\n")
    assert message.endswith("line 99")
    assert len(failure_text("one", ["x" * 100_000])) < 9000
