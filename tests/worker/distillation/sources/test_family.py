"""Every synthesising source: its batches, what it does not change, its memory, and its resume."""

import copy
from dataclasses import fields

import pytest
import torch

from tests.worker.distillation.sources.family import PARAMETERS, ROUNDS, Game, made, network
from worker.distillation import registry
from worker.distillation.errors import Collapsed, Diverged, SpecError
from worker.distillation.source import Position
from worker.distillation.sources import cmi
from worker.distillation.step import Outputs
from worker.distillation.synthesis import mixed_pool
from worker.distillation.synthesis.augmentation import random_affine
from worker.distillation.synthesis.round_watch import RoundWatch
from worker.distillation.trainer.checkpoint import snapshot

each_source = pytest.mark.parametrize("name", PARAMETERS)
each_with_rounds = pytest.mark.parametrize("name", ROUNDS)
STEPS = 16
AHEAD = 3


def same(one, other) -> bool:
    """Whether nested plain data are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def game(name, **parameters) -> Game:
    return Game(made(name, **parameters), {"student": network(1)})


@each_source
def test_batches_are_images_with_the_teachers_logits(name):
    played = game(name, augmentation_probability=0.0)
    seen = [image for image in (played.step() for _ in range(30)) if image is not None]
    assert len(seen) >= 5
    for image in seen:
        assert image.shape[1:] == (2, 8, 12)
        assert image.isfinite().all()
        assert not image.requires_grad
    image, logits = played.source.pool.newest(8)
    torch.testing.assert_close(logits, played.source.context.teacher(image).logits, atol=1e-4, rtol=1e-4)


@each_source
@pytest.mark.parametrize(("shape", "classes"), [((1, 28, 28), 2), ((3, 9, 14), 11), ((5, 16, 7), 2)], ids=str)
def test_any_shape_and_number_of_classes(name, shape, classes):
    played = Game(made(name, shape_CHW=shape, classes=classes), {"student": network(1, shape, classes)})
    for _ in range(14):
        played.step()
    assert played.number
    assert played.source.pool.newest(4)[0].shape[1:] == shape
    assert played.source.pool.newest(4)[1].shape[1:] == (classes,)
    assert played.source.samples(12).shape == (12, *shape)


@each_source
def test_presets_set_parameters_that_are_null(name):
    method = registry.find("sources", name)
    null = {each.name for each in fields(method.Parameters) if each.default is None}
    further = {"embedding_size", "embeddings"}  # which depend on the classes and on the spec
    assert "fast" in method.presets
    for preset in ("fast", "paper"):
        assert set(method.presets.get(preset, null - further)) == null - further


@each_source
@pytest.mark.parametrize("of", ["batch", "generator_step"])
def test_networks_are_left_as_they_were(name, of):
    played = game(name)
    student, teacher = played.students["student"], played.source.context.teacher.network
    student[2].eval()
    original, calls = getattr(played.source, of), []

    def watched(*arguments):
        modes = [module.training for module in student.modules()]
        before = copy.deepcopy([dict(each.state_dict()) for each in (student, teacher)])
        random = torch.get_rng_state()
        gradients = [parameter.grad is None for parameter in student.parameters()]
        result = original(*arguments)
        assert same(before, [dict(each.state_dict()) for each in (student, teacher)])
        assert [module.training for module in student.modules()] == modes
        assert [parameter.grad is None for parameter in student.parameters()] == gradients
        assert all(parameter.requires_grad for parameter in student.parameters())
        assert all(parameter.grad is None for parameter in teacher.parameters())
        assert torch.equal(torch.get_rng_state(), random)
        calls.append(of)
        return result

    setattr(played.source, of, watched)
    for _ in range(STEPS):
        played.step()
    assert calls or (of == "generator_step" and not played.source.generator_steps(STEPS))


@each_source
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_killed_at_any_step_and_restored_bit_equal(name, precision):
    whole, states = game(name, precision=precision), []
    for _ in range(STEPS + AHEAD):
        states.append((snapshot(whole.source.state_dict()), copy.deepcopy(whole)))
        whole.step()
    for at in range(0, STEPS, 1 if precision == "fp32" else 7):
        (saved, then), (later, expected) = states[at], states[at + AHEAD]
        resumed = Game(made(name, precision=precision), then.students)
        resumed.optimizers, resumed.number, resumed.own = then.optimizers, then.number, then.own
        resumed.source.load_state_dict(saved)
        for _ in range(AHEAD):
            resumed.step()
        assert same(snapshot(resumed.source.state_dict()), later)
        assert same(dict(resumed.students["student"].state_dict()), dict(expected.students["student"].state_dict()))


@each_source
def test_seed_decides_everything(name):
    played = [Game(made(name, seed=seed), {"student": network(1)}) for seed in (5, 5, 6)]
    images = []
    for one in played:
        torch.manual_seed(len(images))
        images.append([image for image in (one.step() for _ in range(STEPS)) if image is not None])
    assert same(images[0], images[1])
    assert not same(images[0], images[2])


@each_source
def test_pool_keeps_within_its_memory(name):
    played = game(name, pool_images=100_000, pool_megabytes=1, generator_batch=128, precision="fp32")
    each = 2 * 8 * 12 * 4 + 3 * 4
    for _ in range(10):
        played.step()
    pool = played.source.pool
    assert pool.capacity == 2**20 // each
    held = sum(tensor.numel() * tensor.element_size() for shard in pool._shards for tensor in shard.values())
    assert held <= 2**20
    with pytest.raises(SpecError, match="/source/pool_megabytes"):
        made(name, generator_batch=8192, pool_megabytes=1, precision="fp32")


@each_source
def test_samples_are_new_and_leave_no_trace(name):
    played = game(name)
    for _ in range(STEPS):
        played.step()
    before = snapshot(played.source.state_dict())
    samples = played.source.samples(10)
    assert torch.equal(samples, played.source.samples(10))
    assert same(before, snapshot(played.source.state_dict()))
    seen = played.source.pool.newest(1000)[0]
    assert (samples[:, None] - seen[None]).abs().amax(dim=(2, 3, 4)).min() > 1e-3


@each_source
def test_labels_of_the_teacher_if_required(name):
    for probability in (0.0, 1.0):
        played = game(name, labels="teacher", augmentation_probability=probability)
        while played.step() is None:
            pass
        batch = played.source.batch(Position(0, 1, 1, 0.1), played.students)
        expected = played.source.context.teacher(batch.image)
        assert isinstance(expected, Outputs)
        assert torch.equal(batch.fields["label"], expected.logits.argmax(1))


@each_with_rounds
def test_rounds_come_when_they_are_due_and_end(name):
    source = made(name, rounds=3)
    iterations, held = source.iterations, int(hasattr(source, "held"))
    due = [source.generator_steps(number) // iterations - held for number in range(15)]
    assert due == [2, 2, 2] + [3] * 12
    assert all(source.generator_steps(number) % iterations == 0 for number in range(15))


@each_with_rounds
def test_students_are_asked_only_after_the_first_rounds(name):
    played = game(name)
    against = {"boundary", "competition"}
    while played.step() is None:
        assert not against & set(played.source.terms)
    while played.step() is not None:
        pass
    assert against & set(played.source.terms)


@each_with_rounds
def test_pool_gets_the_images_of_the_lowest_loss(name):
    played = game(name, iterations=8, augmentation_probability=0.0, shift=0, precision="fp32")
    source, losses = played.source, []
    for number in range(8):
        before = source.lowest.item() if number else float("inf")
        source.generator_step(number, {})
        losses.append(source.lowest.item())
        assert losses[-1] <= before
    assert losses[-1] < losses[0]
    kept = source.held if hasattr(source, "held") else source.pool.newest(16)[0]
    assert torch.equal(kept, source.best)


@each_with_rounds
def test_not_a_number_ends_the_run(name):
    broken = network(0)
    broken[-1].weight.data[:] = float("nan")
    source = made(name, teacher=broken)
    with pytest.raises(Diverged, match="round 0"):
        for number in range(source.iterations):
            source.generator_step(number, {})


@each_with_rounds
@pytest.mark.parametrize(
    ("weight", "bias", "why"), [(0.0, 1.0, "outputs were the same for all images"), (1.0, 1e4, "few of the classes")]
)
def test_teacher_with_the_same_outputs_for_all_images_ends_the_run(name, weight, bias, why):
    planted = network(0)
    planted[-1].weight.data *= weight
    planted[-1].bias.data[0] += bias
    source = made(name, teacher=planted, iterations=40)
    with pytest.raises(Collapsed, match=why):
        for number in range(5 * source.iterations):
            source.generator_step(number, {})


def test_rounds_of_identical_images_are_not_blamed_on_the_teacher():
    watch = RoundWatch(iterations=100, hint="raise it")
    image, logits, target = torch.randn(30, 1, 4, 4), torch.randn(30, 3), torch.arange(30) % 3
    watch.see(0, image, logits, target)
    for number in (1, 2):
        watch.see(number, image[:1].expand_as(image), logits[:1].expand_as(logits), target)
    with pytest.raises(
        Collapsed, match="by round 3: for 3 rounds all images of a round were nearly identical"
    ) as caught:
        watch.see(3, image[:1] + 0.01 * image, logits, target)
    assert caught.value.restart_may_help and caught.value.hint == "raise it"


@pytest.mark.parametrize("name", ["dfq", *(name for name in ROUNDS if name != "cpnet")])
def test_teacher_without_batch_norm_is_refused_with_a_way_out(name):
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    with pytest.raises(SpecError, match="/teacher: has no BatchNorm") as caught:
        made(name, teacher=plain)
    assert "`dfad`" in caught.value.hint
    played = Game(made(name, teacher=plain, statistics_weight=0.0), {"student": network(1)})
    for _ in range(16):
        played.step()
    assert played.number
    assert "batch_statistics" not in played.source.metrics()


@pytest.mark.parametrize("name", [name for name in ROUNDS if name != "cpnet"])
def test_a_source_without_a_term_for_its_images_is_refused(name):
    with pytest.raises(SpecError, match="/source/one_hot_weight: must be greater than 0"):
        made(name, one_hot_weight=0.0, statistics_weight=0.0)
    made(name, one_hot_weight=0.0)


@each_source
def test_images_are_within_the_range_of_pixels_by_default(name):
    source = made(name, precision="fp32")
    low, high = source.context.contract.pixel_range(torch.device("cpu"))
    played = Game(source, {"student": network(1)})
    for _ in range(STEPS):
        played.step()
    image = source.pool.newest(1000)[0]
    assert (image >= low - 1e-5).all() and (image <= high + 1e-5).all() and image.std() > 0.1
    assert "paper" not in source.presets or source.presets["paper"].get("generator_output") != "contract"


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name != "procedural"])
def test_a_share_of_the_pool_may_be_procedural_images(name, monkeypatch):
    monkeypatch.setattr(mixed_pool, "FAMILY_IMAGES", 16)
    played = game(name, procedural_share=0.5, pool_images=96, augmentation_probability=0.0)
    while played.number < 4:
        played.step()
    pool, source = played.source.pool, played.source
    assert source.added == 16 and pool.written % 32 == 0
    image, logits = pool.newest(32)
    torch.testing.assert_close(logits, source.context.teacher(image).logits, atol=1e-4, rtol=1e-4)
    before = made(name, procedural_share=0.0, pool_images=96)
    assert before.added == 0 and "_families" not in vars(before)


def test_a_share_of_procedural_images_leaves_room_for_the_sources_own():
    assert made("dafl", procedural_share=0.9).added == 40 - 16


@pytest.mark.parametrize(("name", "every"), [("zskt", 10), ("dfad", 5), ("dfq", 10)])
def test_students_of_the_papers_read_images_from_after_the_generator_step(name, every):
    played = game(name, preset="paper", pool_images=None, initial_generator_steps=None)
    source, before, after = played.source, [], []
    step, images = source.training.step, source.training.images
    source.training.step = lambda *given: before.append(step(*given)) or before[-1]
    source.training.images = lambda noise: after.append(images(noise)) or after[-1]
    shown = [played.step() for _ in range(2 * every)]
    assert len(before) == 2 and source.steps_per_generator_step == every
    wanted = after if name != "zskt" else [image for image in after for _ in range(every)]
    assert len(wanted) == len(shown)
    for image, made_after in zip(shown, wanted, strict=True):
        assert torch.equal(image, made_after.to(source.pool.dtype).float())
    assert not any(torch.equal(image, made_before) for image in shown for made_before in before)


def test_zskt_weighs_divergence_as_a_mean_over_classes_in_the_preset_of_its_paper():
    assert made("zskt").weights().divergence == 1
    assert made("zskt", classes=7, preset="paper").weights().divergence == pytest.approx(1 / 7)
    assert made("zskt", preset="paper", divergence_weight=3.0).weights().divergence == 3


def test_dfq_has_the_benchmarks_adam_in_the_preset_of_the_paper():
    betas = [made("dfq", **more).training.optimizer.param_groups[0]["betas"] for more in ({}, {"preset": "paper"})]
    assert betas == [(0.9, 0.999), (0.5, 0.999)]


def test_views_for_contrast_are_made_in_full_precision(monkeypatch):
    seen = []

    def view(image, random):
        seen.append(torch.is_autocast_enabled("cpu"))
        return random_affine(image, random)

    monkeypatch.setattr(cmi, "random_affine", view)
    played = game("cmi", precision="bf16")
    played.step()
    assert seen == [False]
