"""The steps by which an engine confines itself on Linux, in the required order."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from worker.distillation.sandbox import kernel, landlock, namespace, places, seccomp
from worker.distillation.sandbox.landlock import Rule
from worker.distillation.sandbox.report import Report


def confine(
    folder: Path, ranks: int, gpu: bool, process: int, version: int | None = None, reads: Sequence[Path] = ()
) -> Report:
    """See the package's `confine`; `version` is the Landlock version (default: the kernel's)."""
    if (threads := kernel.threads()) != 1:
        return Report(why=(f"the engine has {threads} threads, but only one of them would be confined",))
    version = landlock.version() if version is None else version
    report, network = Report(), "none"
    if ranks > 1:
        report, network = _leave_network(report)
    kernel.drop_capabilities()
    kernel.forbid_privileges()
    report = _confine_files(report, [*places.rules(folder, gpu, ranks, reads)], ranks, version)
    report = _filter_calls(report, network, ranks, gpu, process, version)
    kernel.hide_memory()
    return replace(report, memory="hidden")


def _leave_network(report: Report) -> tuple[Report, str]:
    try:
        namespace.leave_network()
    except OSError as error:
        return _add(report, f"the ranks cannot have a network namespace of their own ({error.strerror})"), "shared"
    return report, "own"


def _confine_files(report: Report, rules: Sequence[Rule], ranks: int, version: int) -> Report:
    if version == 0:
        return _add(report, "this kernel has no Landlock, or it is not enabled: files are not restricted")
    try:
        landlock.restrict(rules, ranks > 1, version)
    except OSError as error:
        return _add(report, f"the kernel refuses Landlock ({error.strerror}): files are not restricted")
    signals = "scoped" if version >= 6 else report.signals
    return replace(report, filesystem=f"landlock-{version}", signals=signals)


def _filter_calls(report: Report, network: str, ranks: int, gpu: bool, process: int, version: int) -> Report:
    # Landlock before version 6 does not scope signals: then a single rank may signal only itself, several are unrestricted
    to_others = version >= 6 or ranks > 1
    allowed = seccomp.Allowed(
        sockets=ranks > 1, gpu=gpu, signals=to_others, truncation=version >= 3, processes=ranks > 1
    )
    try:
        seccomp.install(allowed, process)
    except OSError as error:
        return _add(report, f"the kernel refuses the seccomp filter ({error.strerror}): the network is not restricted")
    return replace(report, network=network, signals=report.signals if to_others else "scoped")


def _add(report: Report, why: str) -> Report:
    return replace(report, why=(*report.why, why))
