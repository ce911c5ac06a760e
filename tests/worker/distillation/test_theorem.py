"""The whole engine against a theorem: a linear student distilled from a linear teacher has a known limit.

Phuong, Lampert, "Towards understanding knowledge distillation", ICML 2019 (arXiv:2105.13093), theorem 1: with the
softened cross-entropy, gradient descent of a linear student on n samples in d > n dimensions converges to the point
nearest to its start among those that agree with the teacher on the samples. If it starts at zero, that is the projection
of the teacher onto the span of the samples. With n >= d it converges to the teacher. A deep linear student with small,
balanced initial weights has the same limit, and with more samples the angle between student and teacher never increases
(section 4.3). Swapped networks, a teacher that changes, unrequested weight decay, or noise in the training loop would
lead to another limit.
"""

import io
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.worker.distillation.killed_runs import INPUT, job_of, run_whole
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run

SAMPLES = 12
LINEAR = {"network": "mlp", "options": {"hidden": []}}
TRAINING = {"steps": 250, "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0, "schedule": "constant"}
TRAINED_LONG = TRAINING | {"steps": 400, "learning_rate": 0.2}


def job_on(folder: Path, image: Tensor, teacher: dict[str, Tensor], options: dict, training: dict) -> Job:
    """A job with a linear teacher on uint8 images (n, 1, H, W) labelled by the teacher, with full batches."""
    size = {"height": image.shape[2], "width": image.shape[3]}
    plain = {"hidden": [], "bias": "fc1.bias" in teacher}
    network = networks.build("mlp", 2, read_contract(INPUT | size), plain)
    network.load_state_dict(teacher)
    with torch.no_grad():
        label = network(rows(image).view(image.shape)).argmax(1)
    (folder / "inputs").mkdir(parents=True)
    names = {"class_names": json.dumps(["0", "1"])}
    save_file({"train.image": image, "train.label": label}, folder / "inputs" / "dataset.safetensors", names)
    save_file(teacher, folder / "inputs" / "teacher.safetensors")
    job = job_of(
        folder,
        classes=2,
        student={"network": "mlp", "options": options},
        objectives=[{"name": "kd", "temperature": 1.0}],
        training=training | {"batch_size": len(image)},
    )
    job.values["teacher"] |= {"network": "mlp", "options": plain, "input": INPUT | size}
    return job


def rows(image: Tensor) -> Tensor:
    """The networks' input for uint8 images (n, 1, H, W), as rows (n, d)."""
    return ((image.float() / 255 - INPUT["mean"][0]) / INPUT["std"][0]).flatten(1)


def boundary(state: dict[str, Tensor]) -> Tensor:
    """The decision boundary: the difference of the two rows, with the bias appended, in float64."""
    product = state["fc1.weight"].double()
    for number in range(2, 1 + sum(name.endswith("weight") for name in state)):
        product = state[f"fc{number}.weight"].double() @ product
    if "fc1.bias" in state:
        product = torch.cat([product, state["fc1.bias"].double()[:, None]], dim=1)
    return product[1] - product[0]


def student_of(job: Job) -> Tensor:
    return boundary(load_file(job.folder / "output" / "student.safetensors"))


def projected(x: Tensor, w: Tensor) -> Tensor:
    """The projection of w onto the span of the rows of x; x has fewer rows than columns."""
    return x.T @ torch.linalg.solve(x @ x.T, x @ w)


def draw(samples: int, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Images of twenty pixels, and a teacher without bias."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (samples, 1, 4, 5), dtype=torch.uint8, generator=generator)
    return image, {"fc1.weight": torch.randn(2, 20, generator=generator) / 5}


def test_student_ends_at_the_teachers_projection_onto_the_data(tmp_path):
    torch.manual_seed(0)
    teacher = networks.build("mlp", 2, read_contract(INPUT), LINEAR["options"]).state_dict()
    image = torch.randint(0, 256, (SAMPLES, 1, 16, 16), dtype=torch.uint8)
    job = job_on(tmp_path / "job", image, teacher, LINEAR["options"], TRAINING)
    run = Run(job, Channel(io.StringIO()))
    run.execute()
    start = boundary(run.lineage.initial(run.lineage.procedure.next((), run.lineage.plan), "student").state_dict())
    data = torch.cat([rows(image), torch.ones(SAMPLES, 1)], dim=1).double()
    expected = start + projected(data, boundary(teacher) - start)
    torch.testing.assert_close(student_of(job), expected, rtol=0, atol=2e-5)
    assert (student_of(job) - boundary(teacher)).norm() > 0.1  # the samples do not span the whole space
    assert (start - expected).norm() > 0.1


def from_weights(job: Job, state: dict[str, Tensor]) -> Job:
    save_file(state, job.folder / "inputs" / "weights.safetensors")
    return Job({**job.values, "initial_weights": "inputs/weights.safetensors"}, job.folder)


def small_and_balanced(hidden: list[int], direction: Tensor, size: float = 0.2) -> dict[str, Tensor]:
    """Weights of a deep linear network of two classes: products of unit vectors, `W_(i+1)^T W_(i+1) = W_i W_i^T`."""
    weights, right = {}, direction / direction.norm()
    for number, width in enumerate(hidden, start=1):
        left = torch.eye(width)[0]
        weights[f"fc{number}.weight"] = size * torch.outer(left, right)
        right = left
    last = size / 2**0.5 * torch.stack([-right, right])
    return weights | {f"fc{len(hidden) + 1}.weight": last}


@pytest.mark.parametrize("samples", [8, 50])
@pytest.mark.parametrize("hidden", [[], [3], [4, 3]])
def test_depth_does_not_change_the_limit(hidden, samples, tmp_path):
    """With fewer samples than the twenty dimensions the limit is the teacher's projection, with more it is the teacher."""
    image, teacher = draw(samples)
    options = {"hidden": hidden, "activation": "none", "bias": False}
    job = job_on(tmp_path / "job", image, teacher, options, TRAINED_LONG)
    x, w = rows(image), boundary(teacher)
    state = small_and_balanced(
        hidden, x.T @ (x @ w.float())
    )  # the direction of the first step, in the span of the data
    layers = [state[f"fc{number}.weight"] for number in range(1, len(hidden) + 2)]
    for before, after in pairwise(layers):
        torch.testing.assert_close(after.T @ after, before @ before.T)
    run_whole(from_weights(job, state))
    expected = projected(x.double(), w) if samples < 20 else w
    torch.testing.assert_close(student_of(job), expected, rtol=0, atol=1e-4)
    assert ((expected - w).norm() > 0.3) == (samples < 20)


def test_more_data_never_increases_the_angle_to_the_teacher(tmp_path):
    image, teacher = draw(20)
    w, angles = boundary(teacher), []
    for samples in (1, 3, 7, 12, 19):
        options = {"hidden": [], "bias": False}
        job = job_on(tmp_path / str(samples), image[:samples], teacher, options, TRAINED_LONG)
        run_whole(from_weights(job, {"fc1.weight": torch.zeros(2, 20)}))
        angles.append(float(torch.acos(torch.cosine_similarity(student_of(job), w, dim=0))))
    assert angles == sorted(angles, reverse=True)
    assert angles[0] > 1 > 0.7 > angles[-1]
