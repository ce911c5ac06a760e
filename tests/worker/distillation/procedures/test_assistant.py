"""Teacher assistants: the chain, and that without assistants nothing changes."""

import pytest
import torch

from tests.worker.distillation.killed_runs import same_bits
from tests.worker.distillation.procedures.plans import STUDENT, plan_of, procedure_of, stages_of
from tests.worker.distillation.procedures.trained import HALF, LENET, report_of, run_in, taught, weights_of
from worker.distillation.check import check
from worker.distillation.errors import SpecError
from worker.distillation.procedure import GIVEN

MLP = {"network": "mlp", "options": {"hidden": [16]}}


def test_each_link_learns_from_the_one_before():
    procedure = procedure_of("assistant", assistants=[LENET, MLP])
    stages, history = stages_of(procedure, plan_of())
    assert [stage.teacher for stage in stages] == [GIVEN, "stage:assistant_1", "stage:assistant_2"]
    assert [stage.members["student"].network for stage in stages] == ["lenet5", "mlp", "lenet5_half"]
    assert [stage.epochs for stage in stages] == [10, 10, 10]
    assert all(stage.members["student"].transforms == () for stage in stages[:2])
    assert all(stage.members["student"].objectives == STUDENT.objectives for stage in stages)
    assert stages[2].members["student"] == STUDENT
    assert procedure.kept_places(history, plan_of()) == {
        "assistant_1": "assistant_1/student", "assistant_2": "assistant_2/student",
    }  # fmt: skip


def test_without_assistants_it_is_plain_distillation_to_the_bit(engine_inputs, tmp_path):
    for name in ("assistant", "direct"):
        run_in(engine_inputs, tmp_path / name, {"name": name})
    assert same_bits(*(weights_of(tmp_path / name) for name in ("assistant", "direct")))


def test_the_assistant_that_taught_is_kept(engine_inputs, tmp_path):
    folder = tmp_path / "job"
    done = run_in(
        engine_inputs, folder, {"name": "assistant", "assistants": [MLP]}, evaluation={"split": "train"},
        training={"steps": 3},
    )  # fmt: skip
    kept, stage = (
        weights_of(folder, "assistant_1"),
        done.lineage.procedure.next(done.lineage.history[:1], done.lineage.plan),
    )
    teacher = done.lineage.teacher_of(stage).network.state_dict()
    assert all(torch.equal(teacher[name], weight) for name, weight in kept.items())
    (entry,) = report_of(folder)["kept"]
    assert (entry["name"], entry["network"], entry["options"]["hidden"]) == ("assistant_1", "mlp", [16])


@pytest.mark.parametrize(
    ("values", "teacher", "pointer"),
    [
        ({}, False, "/teacher"),
        ({"assistants": [LENET, {"network": "lenet6"}]}, True, "/procedure/assistants/1/network"),
        ({"assistants": [HALF | {"options": {"width": 1}}]}, True, "/procedure/assistants/0/options/width"),
    ],
)
def test_invalid_parameters_are_refused_with_their_pointer(engine_inputs, values, teacher, pointer):
    with pytest.raises(SpecError) as caught:
        check(taught(engine_inputs, {"name": "assistant", **values}, teacher=teacher))
    assert [problem.pointer for problem in caught.value.problems] == [pointer]
