import pytest
import torch

from worker.distillation.errors import SpecError
from worker.distillation.step import Batch, Outputs, Step
from worker.distillation.trainer.objective_sum import Composition
from worker.distillation.trainer.objective_weight import weight_at


def step(progress=0.0):
    torch.manual_seed(0)
    logits = torch.randn(5, 4, requires_grad=True)
    batch = Batch(torch.zeros(5, 1, 8, 8), {"label": torch.tensor([0, 1, 2, 3, 0])})
    return Step(batch, Outputs(logits), Outputs(torch.randn(5, 4)), progress=progress)


def test_the_sum_is_weighted_and_the_terms_are_not():
    given = step()
    total, terms = Composition([{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9}])(given)
    alone = [Composition([{"name": name}])(given)[0] for name in ("cross_entropy", "kd")]
    assert torch.isclose(total, 0.1 * alone[0] + 0.9 * alone[1])
    assert {name.split("/")[0] for name in terms} == {"cross_entropy", "kd"}
    assert torch.isclose(sum(value for name, value in terms.items() if name.startswith("kd")), alone[1])


def test_two_objectives_of_one_name_get_different_names():
    composition = Composition([{"name": "kd", "temperature": 4.0}, {"name": "kd", "temperature": 1.0}])
    assert composition.names == ["kd", "kd#2"]


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ({"schedule": "linear", "start": 4, "end": 0}, {0: 4, 0.25: 3, 1: 0}),
        ({"schedule": "linear", "start": 1, "end": 2, "until": 0.5}, {0: 1, 0.25: 1.5, 0.5: 2, 0.75: 2}),
        ({"schedule": "cosine", "start": 1, "end": 0}, {0: 1, 0.5: 0.5, 1: 0}),
        ({"schedule": "until", "start": 1, "until": 0.5}, {0: 1, 0.499: 1, 0.5: 0, 1: 0}),
        (2.5, {0: 2.5, 1: 2.5}),
    ],
)
def test_weights_follow_their_schedule(schedule, values):
    for progress, value in values.items():
        assert weight_at(schedule, progress) == pytest.approx(value)


def test_an_objective_with_weight_zero_is_not_computed():
    both = [{"name": "cross_entropy"}, {"name": "kd", "weight": {"schedule": "until", "start": 1, "until": 0.5}}]
    total, terms = Composition(both)(step(0.75))
    assert torch.equal(total, Composition(both[:1])(step())[0])
    assert not any(name.startswith("kd") for name in terms)


def test_all_weights_zero_is_not_an_error():
    total, _ = Composition([{"name": "kd", "weight": 0}])(step())
    total.backward()
    assert total == 0


def test_problems_point_into_the_spec():
    with pytest.raises(SpecError) as caught:
        Composition([{"name": "cross_entropy"}, {"name": "kd", "temperature": -1.0}])
    assert caught.value.problems[0].pointer == "/objectives/1/temperature"
    with pytest.raises(SpecError, match="there is no objective 'kdd'"):
        Composition([{"name": "kdd"}])


@pytest.mark.parametrize(
    ("weight", "pointer"),
    [
        (-1, ""),
        ("1", ""),
        ({"schedule": "sine", "start": 1}, "/schedule"),
        ({"schedule": "linear"}, "/start"),
        ({"schedule": "linear", "start": 1, "until": 0}, "/until"),
        ({"schedule": "until", "start": 1, "epoch": 3}, "/epoch"),
    ],
)
def test_an_invalid_weight_is_refused_with_its_pointer(weight, pointer):
    with pytest.raises(SpecError) as caught:
        Composition([{"name": "cross_entropy"}, {"name": "kd", "weight": weight}])
    assert [problem.pointer for problem in caught.value.problems] == [f"/objectives/1/weight{pointer}"]


def test_only_objectives_with_gradients_to_the_image_use_the_teachers_graph():
    weight, image = torch.randn(4, 64), torch.randn(5, 1, 8, 8, requires_grad=True)
    student = torch.nn.Linear(64, 4)
    given = step()
    given.batch.image = image
    given.student, given.teacher = Outputs(student(image.flatten(1))), Outputs((image.flatten(1) @ weight.T).square())
    both = Composition([{"name": "kd"}, {"name": "attention_gradient"}])
    both(given)[0].backward()
    torch.autograd.grad(given.teacher.logits.sum(), image)  # for the next member of a cohort
    assert student.weight.grad is not None
