"""The whole engine against a theorem: a linear student distilled from a linear teacher has a known limit.

Phuong, Lampert, "Towards understanding knowledge distillation", ICML 2019 (arXiv:2105.13093), theorem 1: under the
softened cross-entropy, gradient descent of a linear student on n samples in d > n dimensions ends at the point nearest
to its start among those that agree with the teacher on the samples: the teacher projected onto their span. Swapped
networks, a teacher that moves, weight decay that was not asked for, or noise in the loop would end elsewhere.
"""

import io
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worker.distillation.killed_runs import INPUT, job_of
from worker.distillation import networks
from worker.distillation.channel import Channel
from worker.distillation.job import read_contract
from worker.distillation.run import Run

SAMPLES = 12
LINEAR = {"network": "mlp", "options": {"hidden": []}}
SPEC = {
    "student": LINEAR,
    "objectives": [{"name": "kd", "temperature": 1.0}],
    "training": {
        "steps": 250, "batch_size": SAMPLES, "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0, "schedule": "constant",
    },
}  # fmt: skip


@pytest.fixture
def linear_job(tmp_path):
    """A job whose teacher is linear, on twelve random images that the teacher itself has labelled."""
    torch.manual_seed(0)
    teacher = networks.build("mlp", 2, read_contract(INPUT), {"hidden": []})
    image = torch.randint(0, 256, (SAMPLES, 1, 16, 16), dtype=torch.uint8)
    x = (image.float() / 255 - INPUT["mean"][0]) / INPUT["std"][0]
    label = teacher(x).argmax(1)
    folder = tmp_path / "job"
    (folder / "inputs").mkdir(parents=True)
    names = {"class_names": json.dumps(["0", "1"])}
    save_file({"train.image": image, "train.label": label}, folder / "inputs" / "dataset.safetensors", names)
    save_file(teacher.state_dict(), folder / "inputs" / "teacher.safetensors")
    job = job_of(folder, classes=2, **SPEC)
    job.values["teacher"] |= LINEAR
    return job, x


def boundary(state):
    """What separates the classes: the difference of the two rows, the bias beside it, in double precision."""
    rows = torch.cat([state["fc1.weight"], state["fc1.bias"][:, None]], dim=1).double()
    return rows[1] - rows[0]


def test_student_ends_at_the_teachers_projection_onto_the_data(linear_job):
    job, x = linear_job
    run = Run(job, Channel(io.StringIO()))
    run.execute()
    start = boundary(run.lineage.initial(run.lineage.procedure.next((), run.lineage.plan), "student").state_dict())
    teacher = boundary(load_file(job.folder / "inputs" / "teacher.safetensors"))
    data = torch.cat([x.flatten(1), torch.ones(SAMPLES, 1)], dim=1).double()
    expected = start + data.T @ torch.linalg.solve(data @ data.T, data @ (teacher - start))
    student = boundary(load_file(job.folder / "output" / "student.safetensors"))
    torch.testing.assert_close(student, expected, rtol=0, atol=2e-5)
    assert (student - teacher).norm() > 0.1  # it is not the teacher: the rest of the space was never seen
    assert (start - expected).norm() > 0.1
