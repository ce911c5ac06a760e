"""Every objective: a run that is killed and restored from bytes ends bit-equal."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.worker.distillation.killed_runs import INPUT, job_of, run_killed, run_whole, same_bits, student_of
from tests.worker.distillation.trial import BOX_SIZE, MAP_SIZE, Setting, boxes_of, objective_of, variants
from worker.distillation import registry
from worker.distillation.check import check

OUTPUTS, SAMPLES, STEPS = 4, 48, 3
CASES = [
    pytest.param(name, values, marks=pytest.mark.slow if values else (), id=f"{name}-{values}")
    for name in registry.names("objectives")
    for values in variants(name)
]
"""The default parameters of each objective, and, in slow tests, every other value of each choice."""


def job_in(folder, name, values):
    """A job of one objective on noise, in a folder with inputs of the objective's first task."""
    needs = objective_of(name, **values).active_needs
    setting = Setting.of("plain", objective_of(name, **values))
    size, task = setting.size, needs.tasks[0]
    outputs = 1 if task == "depth" else OUTPUTS
    draw = torch.Generator().manual_seed(7)
    label = torch.arange(SAMPLES) % OUTPUTS
    image = torch.randint(0, 256, (SAMPLES, 1, size, size), generator=draw, dtype=torch.uint8)
    truth = {
        "multi_label": {"label": torch.nn.functional.one_hot(label, OUTPUTS).to(torch.uint8)},
        "regression": {"target": torch.randn(SAMPLES, OUTPUTS, generator=draw)},
        "segmentation": {"mask": image[:, 0] // 64},
        "depth": {"depth": image[:, 0] / 64.0},
        "detection": boxes_of(SAMPLES, size, OUTPUTS),
    }.get(needs.tasks[0], {"label": label})
    fields = {"image": image, "privileged": 255 - image, **truth}
    (folder / "inputs").mkdir(parents=True)
    names = {"class_names": json.dumps([str(number) for number in range(outputs)])}
    save_file({f"train.{key}": value for key, value in fields.items()}, folder / "inputs/dataset.safetensors", names)
    torch.manual_seed(11)
    weights = setting.build(0, outputs).state_dict()
    save_file(weights, folder / "inputs/teacher.safetensors")
    reads = {"teacher_reads": "privileged"} if "privileged" in needs.fields else {}
    job = job_of(
        folder,
        outputs,
        task=task,
        student={
            "network": setting.names[1],
            "options": setting.options[1],
            "input": INPUT | {"height": size, "width": size},
        },
        source={
            "name": "dataset",
            "augmentation": "scale_crop_flip" if size in (MAP_SIZE, BOX_SIZE) else "standard",
            **reads,
        },
        objectives=[{"name": name, **values}],
        procedure={"name": "mutual" if needs.peers else "direct"},
        training={"steps": STEPS, "learning_rate": 1e-3},
    )
    job.values["teacher"] |= {"network": setting.names[0], "options": setting.options[0]}
    job.values["teacher"]["input"] = INPUT | {"height": size, "width": size}
    return job


@pytest.mark.parametrize(("name", "values"), CASES)
def test_killed_and_restored_bit_equal(name, values, tmp_path, monkeypatch):
    monkeypatch.setattr("worker.distillation.run.check_teacher", lambda *given: None)  # the teacher is untrained
    whole = job_in(tmp_path / "whole", name, values)
    check(whole)
    run_whole(whole)
    run_killed(job_in(tmp_path / "killed", name, values), STEPS - 1, tmp_path / "restored")
    assert same_bits(student_of(tmp_path / "whole"), student_of(tmp_path / "restored"))
