from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from intermodal.model.errors import BadImage, DiskFull, MissingTool, RuntimeFailure
from intermodal.runtimes.cgroups import Cgroups
from intermodal.runtimes.interface import Bundle
from intermodal.runtimes.oci_spec import CAPABILITIES, build_spec
from intermodal.runtimes.runc import start_failure
from intermodal.runtimes.seccomp import load_profile, translate
from modal._wire.messages.function import Resources

PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["read", "mount", "clone"], "action": "SCMP_ACT_ALLOW", "includes": {}, "excludes": {}},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
        {"names": ["arm_only"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
    ],
}


def bundle(**changes: Any) -> Bundle:
    values: dict[str, Any] = {
        "container_id": "ta-1",
        "rootfs": Path("/r"),
        "argv": ("/bin/x",),
        "env": {"A": "b=c"},
        "cwd": "/root",
        "stdout": 1,
        "stderr": 2,
    }
    return Bundle(**{**values, **changes})


def rules(profile: dict[str, Any], name: str) -> list[tuple[str, int | None]]:
    return [(rule["action"], rule.get("errnoRet")) for rule in profile["syscalls"] if name in rule["names"]]


def test_conditions_of_the_profile_are_decided() -> None:
    translated = translate(PROFILE, {"CAP_SYS_CHROOT"}, "x86_64")
    assert translated["architectures"] == ["SCMP_ARCH_X86_64"]
    assert rules(translated, "read") == [("SCMP_ACT_ALLOW", None)]
    assert rules(translated, "bpf") == [("SCMP_ACT_ERRNO", 1)]
    assert rules(translated, "chroot") == [("SCMP_ACT_ALLOW", None)]
    assert rules(translated, "arm_only") == []
    assert rules(translate(PROFILE, {"CAP_SYS_ADMIN"}, "aarch64"), "arm_only") == [("SCMP_ACT_ALLOW", None)]


def test_making_namespaces_and_mounts_is_refused_whatever_the_profile_says() -> None:
    translated = translate(PROFILE, CAPABILITIES, "x86_64")
    assert rules(translated, "mount") == rules(translated, "unshare") == [("SCMP_ACT_ERRNO", 1)]
    assert rules(translated, "clone3") == [("SCMP_ACT_ERRNO", 38)]
    (clone,) = [rule for rule in translated["syscalls"] if "clone" in rule["names"]]
    assert clone["args"][0]["op"] == "SCMP_CMP_MASKED_EQ"


def test_an_unknown_machine_a_missing_and_a_broken_profile_are_errors(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="riscv64"):
        translate(PROFILE, (), "riscv64")
    with pytest.raises(MissingTool, match="apt-get install"):
        load_profile((), tmp_path / "none")
    (tmp_path / "broken").write_text("{")
    with pytest.raises(RuntimeFailure, match="cannot be read"):
        load_profile((), tmp_path / "broken")


def test_the_specification_isolates() -> None:
    spec = build_spec(bundle(), "/intermodal/k/ta-1", {}, 100)
    assert spec["process"]["noNewPrivileges"] is True
    assert spec["process"]["env"] == ["A=b=c"]
    assert spec["process"]["capabilities"]["bounding"] == list(CAPABILITIES)
    assert "CAP_SYS_ADMIN" not in CAPABILITIES
    kinds = {namespace["type"] for namespace in spec["linux"]["namespaces"]}
    assert kinds == {"pid", "mount", "ipc", "uts", "cgroup", "user", "network"}
    assert spec["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    assert spec["linux"]["resources"]["pids"] == {"limit": 100}
    json.dumps(spec)


def test_namespaces_made_ahead_are_joined() -> None:
    spec = build_spec(bundle(netns=Path("/n"), userns=Path("/u")), "/c", {}, 100)
    paths = {one["type"]: one["path"] for one in spec["linux"]["namespaces"] if "path" in one}
    assert paths == {"network": "/n", "user": "/u"}


def test_requests_and_limits_become_cgroup_settings() -> None:
    resources = Resources(cpu=2.0, cpu_limit=0.5, memory=256, memory_limit=128)
    limits = build_spec(bundle(resources=resources), "/c", {}, 1)["linux"]["resources"]
    assert limits["cpu"] == {"shares": 2048, "period": 100_000, "quota": 50_000}
    assert limits["memory"] == {"reservation": 128 << 20, "limit": 128 << 20, "swap": 128 << 20}
    unlimited = build_spec(bundle(), "/c", {}, 1)["linux"]["resources"]
    assert unlimited["cpu"] == {"shares": 128}
    assert unlimited["memory"] == {"reservation": 128 << 20}


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        ('exec: \\"/bin/x\\": stat /bin/x: no such file or directory: unknown', BadImage, "has no /bin/x"),
        ("exec /bin/x: exec format error", RuntimeFailure, "exec format error"),
        ('exec: \\"/bin/x\\": permission denied', BadImage, "permission denied"),
        ("mkdir /r/y: no space left on device", DiskFull, "No space is left"),
        ("something else", RuntimeFailure, "something else"),
    ],
)
def test_what_the_runtime_says_becomes_one_sentence(
    tmp_path: Path, message: str, kind: type[RuntimeFailure], words: str
) -> None:
    (tmp_path / "log").write_text(f'{{"level":"info","msg":"x"}}\nnot json\n{{"level":"error","msg":"{message}"}}\n')
    failure = start_failure(bundle(), tmp_path / "log")
    assert type(failure) is kind or issubclass(type(failure), kind)
    assert words in str(failure)
    assert "no reason" in str(start_failure(bundle(), tmp_path / "none"))


def mountinfo(*lines: tuple[Path, str, str]) -> str:
    return "".join(
        f"30 24 0:2{n} / {path} rw - {kind} cgroup {options}\n" for n, (path, kind, options) in enumerate(lines)
    )


@pytest.mark.parametrize(
    ("kind", "options", "file", "text"),
    [
        ("cgroup", "rw,memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ("cgroup2", "rw", "memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
    ],
)
def test_memory_kills_are_counted_in_both_versions(
    tmp_path: Path, kind: str, options: str, file: str, text: str
) -> None:
    group = tmp_path / "intermodal" / "k" / "ta-1"
    group.mkdir(parents=True)
    (group / file).write_text(text)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    cgroups = Cgroups("/intermodal/k", mountinfo((tmp_path, kind, options)))
    assert cgroups.out_of_memory_kills("ta-1") == 2
    assert cgroups.out_of_memory_kills("ta-gone") == 0
    assert cgroups.has_memory
    assert cgroups.names() == {"ta-1"}


def test_a_machine_without_memory_control_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu pids")
    assert not Cgroups("/p", mountinfo((tmp_path, "cgroup2", "rw"))).has_memory
    with pytest.raises(RuntimeFailure, match="No cgroup file system"):
        Cgroups("/p", "22 1 254:0 / / rw - ext4 /dev/root rw\n")
