"""Cached answers of a teacher: what they are, that they change no student, and when they are refused or ignored."""

import io
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.worker.distillation.killed_runs import (
    events_of,
    job_of,
    run_killed,
    run_whole,
    same_bits,
    student_of,
    with_residual_teacher,
)
from worker.distillation.check import check
from worker.distillation.data.augmentation import Views
from worker.distillation.data.samplers import generator
from worker.distillation.errors import SpecError
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run
from worker.distillation.teaching.cached_answers import MOST_BYTES, check_size
from worker.distillation.trainer.forward_passes import ForwardPasses

KD = [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9}]
RESIDUAL = {"network": "resnet8_cifar", "options": {}}
CACHED = {"teacher_answers": "cached", "steps": 9}
AUGMENTED = {"name": "dataset", "augmentation": "standard", "padding": 2, "views": 2}
SOURCES = {
    "none": {"name": "dataset"},
    "views": AUGMENTED,
    "last_smaller": {**AUGMENTED, "drop_last": False},
    "mates": {**AUGMENTED, "sampler": "per_class", "same_class_images": 1},
}


@pytest.fixture
def folder(engine_inputs, tmp_path):
    return with_residual_teacher(engine_inputs, tmp_path / "job")


def kd_job(folder, source=AUGMENTED, **training):
    job = job_of(folder, objectives=KD, source=source, training={"steps": 9} | training)
    job.values["teacher"].update(network="resnet8_cifar")
    return job


@pytest.mark.parametrize("source", ["none", "views", pytest.param("mates", marks=pytest.mark.slow)])
def test_a_student_is_bit_equal_with_and_without_cached_answers(source, folder, tmp_path):
    live = shutil.copytree(folder, tmp_path / "live")
    run_whole(kd_job(live, SOURCES[source]))
    run_whole(kd_job(folder, SOURCES[source], **CACHED))
    assert same_bits(student_of(live), student_of(folder))


def test_the_teacher_runs_once_for_every_view_and_at_no_step(folder, monkeypatch):
    sizes, live = [], ForwardPasses._live

    def counting(passes, image, *rest):
        sizes.append(len(image))
        return live(passes, image, *rest)

    monkeypatch.setattr(ForwardPasses, "_live", counting)
    run_whole(kd_job(folder, **CACHED))
    assert sizes == [16] * 8  # two views of 64 images in batches of the training's size


class _Kept(Run):
    """Keeps the answers, and the seed of the source."""

    def after_step(self, run):
        self.logits, self.seed = run.passes.answers.logits_NK, run.source.context.seed
        super().after_step(run)


def test_the_answers_are_the_teachers_for_the_views_that_the_seed_draws(folder):
    run = _Kept(kd_job(folder, **CACHED), Channel(io.StringIO()))
    run.execute()
    images = load_file(folder / "inputs" / "dataset.safetensors")["train.image"]
    teacher = run.lineage.teacher
    assert run.logits.shape == (128, 4)
    for round_ in range(2):
        views = Views.draw(64, 2, True, generator(run.seed, "augmentation", round_), torch.device("cpu"))
        for number in (0, 17, 63):
            shown = views.apply(images[number : number + 1], torch.tensor([number]))
            expected = teacher((shown.float() / 255 - 0.5) / 0.25)[0]
            torch.testing.assert_close(run.logits[64 * round_ + number], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("source", "at"), [("views", 6), pytest.param("last_smaller", 1, marks=pytest.mark.slow)])
def test_killed_anywhere_and_restored_bit_equal_without_asking_the_teacher_again(
    source, at, folder, tmp_path, monkeypatch
):
    whole = shutil.copytree(folder, tmp_path / "whole")
    run_whole(kd_job(whole, SOURCES[source], **CACHED))
    asked, live = [], ForwardPasses._live

    def counting(passes, image, *rest):
        asked.append(len(image))
        return live(passes, image, *rest)

    monkeypatch.setattr(ForwardPasses, "_live", counting)
    run_killed(kd_job(folder, SOURCES[source], **CACHED), at, tmp_path / "elsewhere")
    assert same_bits(student_of(whole), student_of(tmp_path / "elsewhere"))
    assert len(asked) == 8  # those of the killed run


def test_the_answers_are_in_the_checkpoints_of_their_stage_alone(folder):
    output = io.StringIO()
    job = kd_job(folder, **CACHED)
    Run(type(job)({**job.values, "checkpoint_seconds": 0}, folder), Channel(output)).execute()
    manifests = [event["manifest"]["parts"] for event in events_of(output) if event["event"] == "checkpoint"]
    (name,) = {part for parts in manifests for part in parts if part.startswith("answers/")}
    assert all(parts[name]["frozen"] for parts in manifests if name in parts)
    assert len({parts[name]["sha256"] for parts in manifests if name in parts}) == 1


def test_they_are_ignored_where_an_objective_reads_activations(engine_inputs, tmp_path):
    objectives = [*KD, {"name": "hint"}]
    folders = [shutil.copytree(engine_inputs, tmp_path / name) for name in ("live", "cached")]
    run_whole(job_of(folders[0], objectives=objectives))
    events = run_whole(job_of(folders[1], objectives=objectives, training={"teacher_answers": "cached"}))
    assert same_bits(*map(student_of, folders))
    (words,) = [each["message"] for each in events if each["event"] == "log" and "ignored" in each["message"]]
    assert "teacher_answers" in words and "one row of logits" in words


@pytest.mark.parametrize(
    ("source", "pointer"),
    [({"name": "noise"}, "/training/teacher_answers"), ({**AUGMENTED, "views": None}, "/source/views")],
)
def test_sources_with_ever_new_images_are_refused_by_the_check_and_by_the_run(source, pointer, engine_inputs, tmp_path):
    job = job_of(shutil.copytree(engine_inputs, tmp_path / "job"), objectives=KD[1:], source=source, training=CACHED)
    for action in (check, run_whole):
        with pytest.raises(SpecError) as caught:
            action(job)
        assert [problem.pointer for problem in caught.value.problems] == [pointer]


def test_more_answers_than_fit_are_refused():
    check_size(MOST_BYTES // 4000, 1000)
    with pytest.raises(SpecError, match="the limit is 2 GiB"):
        check_size(MOST_BYTES // 4000 + 1, 1000)


def test_a_job_without_a_teacher_has_nothing_to_cache(engine_inputs, tmp_path):
    job = job_of(shutil.copytree(engine_inputs, tmp_path / "job"), training={"teacher_answers": "cached"})
    without = {**job.values, "teacher": None}
    without["spec"] = json.loads(json.dumps(job.spec))
    without["spec"]["student"] |= {"classes": 4, "input": job.values["teacher"]["input"]}
    assert run_whole(type(job)(without, job.folder))[-1]["event"] != "error"
