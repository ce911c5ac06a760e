"""Whole runs of detection on a few real images: killed and restored, exported, without labels, and refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.worker.distillation.distributed.two_ranks import compare
from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of
from worker.distillation import networks, registry
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.data.images import Images
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.errors import SpecError
from worker.distillation.job import Job
from worker.distillation.limits import UploadLimits
from worker.distillation.losses.boxes import proposal_losses, region_losses
from worker.distillation.tasks.detection import Detection

CELLS = Path(__file__).parents[1] / "data" / "blood_cells" / "coco.zip"
INPUT = {"channels": 3, "height": 64, "width": 80, "mean": [0.66, 0.64, 0.68], "std": [0.13, 0.14, 0.07]}
TEACHER = {"width": 8, "features": 16, "hidden": 32, "anchors": [6, 12, 24], "proposals": 60, "regions": 32}
STUDENT = TEACHER | {"width": 4, "features": 8, "hidden": 16}
DEFAULTS = [dict(each) for each in Detection.objective_defaults]
TRAINING = {"steps": None, "epochs": 2, "batch_size": 4, "learning_rate": 0.01, "gradient_clip": 10.0}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with blood cells, and a teacher that has learnt their training images a little."""
    folder = tmp_path_factory.mktemp("detection")
    (folder / "inputs").mkdir()
    path = folder / "inputs" / "dataset.safetensors"
    read_dataset(CELLS, Options(labels="boxes"), UploadLimits()).write(path)
    contract = read_contract(INPUT)
    images = Images.load(path, "train", contract, "cpu")
    torch.manual_seed(11)
    teacher = networks.build("tiny_faster_rcnn", 3, contract, TEACHER).train()
    optimizer = torch.optim.Adam(teacher.parameters(), lr=5e-3)
    for _ in range(25):
        outputs = Detection().read(teacher, images.normalise(images.image), images.fields)
        optimizer.zero_grad()
        sum((*proposal_losses(outputs), *region_losses(outputs))).backward()
        optimizer.step()
    save_file(teacher.state_dict(), folder / "inputs" / "teacher.safetensors")
    return folder


def job(folder, **spec):
    usual = {
        "objectives": DEFAULTS,
        "student": {"network": "tiny_faster_rcnn", "options": STUDENT},
        "source": {"name": "dataset", "augmentation": "scale_crop_flip"},
    }
    training = TRAINING | spec.pop("training", {})
    made = job_of(folder, 3, task="detection", training=training, **usual | spec)
    names = {"class_names": ["RBC", "WBC", "Platelets"]}
    made.values["teacher"] |= {"network": "tiny_faster_rcnn", "options": TEACHER, "input": INPUT, **names}
    given = {"dataset": "inputs/dataset.safetensors", "evaluation": "inputs/dataset.safetensors"}
    return Job({**made.values, **given}, folder)


def report_of(folder):
    return json.loads((folder / "output" / "report.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    folder = shutil.copytree(inputs, tmp_path_factory.mktemp("whole") / "job")
    made = job(folder)
    check(made)
    (folder / "events.json").write_text(json.dumps(run_whole(made)))
    return folder


def test_a_run_reports_average_precision_and_results_by_class(undisturbed):
    report = report_of(undisturbed)
    evaluation = report["evaluation"]
    assert report["summary"]["main_metric"]["student"] == evaluation["student"]["map"]
    assert {"map50", "map/RBC", "agreement"} <= evaluation["student"].keys()
    assert evaluation["teacher"]["map50"] > 0.01
    by_class = evaluation["by_class"]
    assert len(by_class["images"]) == len(by_class["teacher"]["average_precision"]) == 3
    terms = report["stages"][-1]["metrics"]
    for objective in DEFAULTS:
        assert any(name.startswith(f"{objective['name']}/") for name in terms), objective


def test_previews_show_boxes(undisturbed):
    from PIL import Image

    events = json.loads((undisturbed / "events.json").read_text())
    found = [event["path"] for event in events if event["event"] == "preview" and "examples" in event["path"]]
    with Image.open(undisturbed / found[0]) as picture:
        assert picture.size == (4 * 82 - 2, 6 * 66 - 2)


@pytest.mark.parametrize("at", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_anywhere_and_restored_bit_equal(inputs, undisturbed, tmp_path, at):
    folder = shutil.copytree(inputs, tmp_path / "killed")
    run_killed(job(folder), at, tmp_path / "restored")
    assert same_bits(student_of(undisturbed), student_of(tmp_path / "restored"))


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 3])
def test_mimicry_in_two_stages_is_killed_in_each(inputs, tmp_path, at):
    spec = {"procedure": {"name": "two_stage", "preset": "mimic"}, "training": {"epochs": None, "steps": 4}}
    whole = job(shutil.copytree(inputs, tmp_path / "whole"), **spec)
    check(whole)
    run_whole(whole)
    run_killed(job(shutil.copytree(inputs, tmp_path / "killed"), **spec), at, tmp_path / "restored")
    assert same_bits(student_of(tmp_path / "whole"), student_of(tmp_path / "restored"))


@pytest.mark.parametrize("labels", ["none", "teacher"])
def test_images_without_labels_serve_as_substitutes(inputs, tmp_path, labels):
    folder = shutil.copytree(inputs, tmp_path / "job")
    objectives = [{"name": "soft_detection"}, {"name": "roi_mimic"}]
    objectives += [{"name": "detection_loss"}] if labels == "teacher" else []
    source = {"name": "substitute", "labels": labels, "augmentation": "scale_crop_flip"}
    made = job(folder, source=source, objectives=objectives, training={"epochs": None, "steps": 2})
    check(made)
    run_whole(made)
    assert report_of(folder)["evaluation"]["images"] == 6


@pytest.mark.slow
def test_a_student_like_its_teacher_begins_as_slices_of_it(inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "job")
    like = {"like": "teacher", "width": 0.5, "initial_weights": "teacher"}
    made = Job.of(job(folder, student=like, training={"epochs": None, "steps": 1}).values, folder)
    check(made)
    run_whole(made)
    assert report_of(folder)["student"]["network"] == "tiny_faster_rcnn"
    assert {name: made.spec["student"]["options"][name] for name in STUDENT} == STUDENT
    assert (folder / "output" / "student.py").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nst", "attention_transfer"])
def test_objectives_on_features_work_on_the_pyramid(inputs, tmp_path, name):
    objectives = [{"name": "detection_loss"}, {"name": name}]
    made = job(shutil.copytree(inputs, tmp_path / "job"), objectives=objectives, training={"epochs": None, "steps": 2})
    check(made)
    metrics = [event["values"] for event in run_whole(made) if event["event"] == "metrics"]
    for level in range(3):
        term = f"{name}/backbone.pyramid.output.{level}"
        found = [value for values in metrics for key, value in values.items() if key.startswith(term)]
        assert found and min(found) > 0, term


@pytest.mark.parametrize("kind", ["tiny_fcos", "tiny_retinanet"])
def test_detectors_of_one_stage_learn_from_labels_and_features(inputs, tmp_path, kind):
    folder = shutil.copytree(inputs, tmp_path / "job")
    objectives = [{"name": "detection_loss"}, {"name": "nst"}]
    made = job(
        folder,
        student={"network": kind, "options": STUDENT},
        objectives=objectives,
        training={"epochs": None, "steps": 2},
    )
    check(made)
    run_whole(made)
    assert report_of(folder)["evaluation"]["student"].keys() >= {"map", "agreement"}


@pytest.mark.parametrize(
    ("spec", "words", "pointer"),
    [
        (
            {"source": {"name": "dafl"}, "objectives": [{"name": "hint"}]},
            "use `substitute` with any real images",
            "/source",
        ),
        ({"objectives": [{"name": "kd"}]}, "for classification", "/objectives/0/name"),
        ({"student": {"network": "lenet5_half", "options": {}}}, "use a detector", "/student/network"),
        (
            {
                "student": {"network": "tiny_faster_rcnn", "options": STUDENT | {"anchors": [6, 12, 13]}},
                "objectives": [{"name": "bounded_boxes"}],
            },
            None,
            None,
        ),
    ],
)
def test_what_does_not_fit_is_refused(inputs, tmp_path, spec, words, pointer):
    made = job(shutil.copytree(inputs, tmp_path / "job"), **spec)
    if words is None:
        check(made)  # other sizes of as many anchors can be compared
        return
    with pytest.raises(SpecError, match=words) as caught:
        check(made)
    assert pointer in [problem.pointer for problem in caught.value.problems]


def test_every_default_objective_is_for_detection():
    for each in DEFAULTS:
        assert "detection" in registry.find("objectives", each["name"]).needs.tasks


@pytest.mark.slow
def test_two_ranks_draw_the_same_regions_as_one_process(inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "one")
    compare(job(folder, source={"name": "dataset", "augmentation": "none"}), folder)
