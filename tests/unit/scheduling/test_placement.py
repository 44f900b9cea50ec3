from __future__ import annotations

import pytest

from intermodal.scheduling.events import NodeJoined
from intermodal.scheduling.placement import Placement, Request, Verdict
from modal._wire.messages.function import Resources


def placement(*nodes: NodeJoined) -> Placement:
    made = Placement()
    for node in nodes:
        made.join(node)
    return made


LOCAL = NodeJoined("local", 2.0, 1000)
GPUS = NodeJoined("gpus", 8.0, 8000, ("A100", "A100", "T4"))


def test_a_container_goes_to_the_node_with_most_free_cpu() -> None:
    made = placement(NodeJoined("a", 2.0, 1000), NodeJoined("b", 4.0, 1000))
    assert made.fit(Request(100, 10)).node_id == "b"
    made.take(Request(3000, 10), "b")
    assert made.fit(Request(100, 10)).node_id == "a"


def test_eight_eighths_of_a_core_are_one_core_exactly() -> None:
    made = placement(LOCAL)
    request = Request.of(Resources())
    for _ in range(16):
        made.started(made.take(request, "local"))
    assert made.nodes["local"].free_cpu == 0
    assert made.fit(request).verdict is Verdict.PENDING


def test_what_is_released_can_be_given_again() -> None:
    made = placement(LOCAL)
    version = made.version
    taken = made.take(Request(2000, 1000), "local")
    assert made.fit(Request(1, 1)).verdict is Verdict.PENDING
    made.started(taken)
    made.release(taken)
    assert made.version > version
    assert made.fit(Request(2000, 1000)).verdict is Verdict.FITS


def test_the_reason_names_everything_that_is_short() -> None:
    made = placement(LOCAL)
    made.started(made.take(Request(1500, 900), "local"))
    fit = made.fit(Request(1000, 200))
    assert fit.reason == "needs 1 core (0.5 of 2 free) and 200 MiB of memory (100 of 1000 free) on local"
    assert fit.short == ("cpu", "memory")


def test_only_so_many_containers_start_at_one_time() -> None:
    made = placement(LOCAL)
    first = made.take(Request(10, 10), "local")
    made.take(Request(10, 10), "local")
    assert made.fit(Request(10, 10)).verdict is Verdict.BUSY
    made.started(first)
    assert made.fit(Request(10, 10)).verdict is Verdict.FITS


def test_cpu_can_be_overcommitted_when_asked_but_memory_cannot() -> None:
    made = placement(LOCAL)
    made.started(made.take(Request(2000, 500), "local"))
    assert made.fit(Request(2000, 500), overcommit_cpu=True).verdict is Verdict.FITS
    assert made.fit(Request(2000, 501), overcommit_cpu=True).verdict is Verdict.PENDING


def test_the_first_gpu_alternative_that_is_free_is_taken() -> None:
    made = placement(GPUS)
    request = Request.of(Resources(gpu=["a100:2", "t4"]))
    assert made.take(request, "gpus").gpus == ("A100", "A100")
    assert made.take(request, "gpus").gpus == ("T4",)
    fit = made.fit(request)
    assert fit.verdict is Verdict.PENDING
    assert fit.reason == "needs 2 x a100 or 1 x t4 (0 of 3 GPUs free) on gpus"


def test_any_gpu_takes_devices_of_one_type() -> None:
    made = placement(GPUS)
    assert made.take(Request.of(Resources(gpu=["any:2"])), "gpus").gpus == ("A100", "A100")
    assert made.fit(Request.of(Resources(gpu=["any:3"]))).verdict is Verdict.IMPOSSIBLE


def test_a_node_with_gpus_is_the_last_choice_for_what_needs_none() -> None:
    assert placement(GPUS, LOCAL).fit(Request(100, 10)).node_id == "local"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Request(3000, 1), "needs 3 cores; the largest machine has 2 cores"),
        (Request(1, 2000), "needs 2000 MiB of memory; the largest machine has 1000 MiB"),
        (Request.of(Resources(gpu=["H100"])), "needs 1 x h100; the machines have no GPU"),
    ],
)
def test_what_can_never_fit_is_told_with_what_there_is(request_: Request, reason: str) -> None:
    fit = placement(LOCAL).fit(request_)
    assert (fit.verdict, fit.reason) == (Verdict.IMPOSSIBLE, reason)


def test_labels_are_matched_where_nodes_have_them() -> None:
    made = placement(NodeJoined("east", 2, 1000, cloud="aws", region="us-east-1"))
    assert made.fit(Request.of(Resources(), "AWS", ["us-east"])).verdict is Verdict.FITS
    assert made.fit(Request.of(Resources(), "auto")).verdict is Verdict.FITS
    fit = made.fit(Request.of(Resources(), "", ["eu", "ap"]))
    assert (fit.verdict, fit.reason) == (Verdict.IMPOSSIBLE, "asks for eu or ap, and no machine is there")


def test_a_machine_without_labels_accepts_any_region() -> None:
    assert placement(LOCAL).fit(Request.of(Resources(), "gcp", ["mars"])).verdict is Verdict.FITS


def test_what_only_a_lost_machine_could_run_waits_for_it() -> None:
    made = placement(LOCAL, GPUS)
    made.lose("gpus")
    request = Request.of(Resources(gpu=["T4"]))
    assert made.fit(request).reason == "needs the machine gpus, which is not connected"
    made.join(GPUS)
    assert made.fit(request).verdict is Verdict.FITS


def test_a_node_that_joins_again_keeps_what_it_has_given_away() -> None:
    made = placement(LOCAL)
    made.take(Request(500, 100), "local")
    made.join(NodeJoined("local", 4.0, 2000))
    assert (made.nodes["local"].free_cpu, made.nodes["local"].free_memory) == (3500, 1900)
