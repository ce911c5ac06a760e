"""Checkpoint parts that hold finished networks: their names, and when each is written.

These parts are frozen: they never change, and every later checkpoint contains them.
"""

from collections.abc import Sequence

from worker.distillation.trainer.checkpoint import Checkpoints, state_of
from worker.distillation.trainer.member_run import MemberRun
from worker.distillation.trainer.stage_run import StageRun
from worker.distillation.transformed_network import Entry


def split_place(place: str) -> tuple[str, str, str]:
    """Stage, member (default `student`) and epoch (may be empty) of `STAGE/MEMBER@EPOCH`."""
    place, _, epoch = place.partition("@")
    stage, _, member = place.partition("/")
    return stage, member or "student", epoch


def network_part(place: str) -> str:
    """Name of the part that holds a finished stage's network, or a snapshot of it."""
    stage, member, epoch = split_place(place)
    return f"snapshot/{stage}/{member}@{epoch}" if epoch else f"stage/{stage}/{member}"


def objectives_part(place: str) -> str:
    """Name of the part that holds the state that objectives add to a deployed network."""
    stage, member, epoch = split_place(place)
    return f"shipping/{stage}/{member}@{epoch}" if epoch else f"shipping/{stage}/{member}"


def transforms_part(place: str) -> str:
    """Name of the part that lists what to apply to a new network before its weights are loaded."""
    stage, member, epoch = split_place(place)
    return f"transforms/{stage}/{member}@{epoch}" if epoch else f"transforms/{stage}/{member}"


def average_part(place: str) -> str:
    """Name of the part that holds the running weight average of a finished stage's network."""
    stage, member, _ = split_place(place)
    return f"average/{stage}/{member}"


def freeze_snapshots(run: StageRun, epoch: int, checkpoints: Checkpoints) -> None:
    """Freeze all members as if the stage ended now; called after an epoch whose weights later stages read."""
    for name, member in run.members.items():
        place = f"{run.stage.name}/{name}@{epoch}"
        weights, entries = member.finalized()
        checkpoints.freeze(network_part(place), weights)
        _freeze_entries(place, entries, checkpoints)
        _freeze_objectives(place, member, checkpoints)


def freeze_averages(run: StageRun, checkpoints: Checkpoints) -> None:
    """Freeze the weight averages at the end of a stage, before transforms are applied to the network."""
    for name, member in run.members.items():
        if average := member.averaged():
            checkpoints.freeze(average_part(f"{run.stage.name}/{name}"), average)


def freeze_networks(run: StageRun, checkpoints: Checkpoints) -> None:
    """Freeze all members at the end of a stage."""
    for name, member in run.members.items():
        place = f"{run.stage.name}/{name}"
        checkpoints.freeze(network_part(place), state_of(member.network))
        _freeze_entries(place, member.entries, checkpoints)
        _freeze_objectives(place, member, checkpoints)


def _freeze_entries(place: str, entries: Sequence[Entry], checkpoints: Checkpoints) -> None:
    if entries:
        checkpoints.freeze(transforms_part(place), list(entries))


def _freeze_objectives(place: str, member: MemberRun, checkpoints: Checkpoints) -> None:
    if state := member.deployed_objectives():
        checkpoints.freeze(objectives_part(place), state)
