"""Whole runs of segmentation and depth: killed and restored, exported, without labels, and refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from tests.worker.distillation.distributed.two_ranks import compare
from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of
from worker.distillation import networks, registry
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.job import Job

SIZE, SAMPLES = 32, 48
INPUT = {"channels": 3, "height": SIZE, "width": SIZE, "mean": [0.5] * 3, "std": [0.25] * 3}
NETWORKS, OUTPUTS = {"segmentation": "fpn", "depth": "fpn_depth"}, {"segmentation": 3, "depth": 1}
TEACHER, STUDENT = {"width": 8}, {"width": 4}
TRAINING = {"steps": None, "epochs": 2, "validation_fraction": 0.25, "selection": "best"}


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def task(request):
    return request.param


@pytest.fixture(scope="module")
def inputs(task, tmp_path_factory):
    """A folder with images of a bright and a dark rectangle, and a teacher that has learnt them a little."""
    folder, draw = tmp_path_factory.mktemp(task), torch.Generator().manual_seed(7)
    mask = torch.zeros(SAMPLES, SIZE, SIZE, dtype=torch.uint8)
    for number in range(SAMPLES):
        top, left = torch.randint(0, 16, (2,), generator=draw).tolist()
        mask[number, top : top + 12, left : left + 14] = 1 + number % 2
    noise = torch.randint(0, 40, (SAMPLES, 3, SIZE, SIZE), generator=draw)
    image = (mask[:, None] * 90 + noise).byte()
    field = {"mask": torch.where(noise[:, 0] == 0, 255, mask.long()).byte()}
    if task == "depth":
        field = {"depth": torch.where(noise[:, 0] == 0, 0.0, 1.0 + mask)}
    (folder / "inputs").mkdir()
    names = [str(number) for number in range(OUTPUTS[task])]
    tensors = {f"train.{name}": value for name, value in {"image": image, **field}.items()}
    save_file(tensors, folder / "inputs" / "dataset.safetensors", {"class_names": json.dumps(names)})
    torch.manual_seed(11)
    teacher = networks.build(NETWORKS[task], OUTPUTS[task], read_contract(INPUT), TEACHER)
    optimizer, x = torch.optim.Adam(teacher.parameters(), lr=1e-2), (image.float() / 255 - 0.5) / 0.25
    for _ in range(40):
        optimizer.zero_grad()
        output = teacher(x)
        if task == "depth":
            loss = (output[:, 0] - field["depth"]).abs()[field["depth"] > 0].mean()
        else:
            loss = torch.nn.functional.cross_entropy(output, mask.long())
        loss.backward()
        optimizer.step()
    save_file(teacher.state_dict(), folder / "inputs" / "teacher.safetensors")
    return folder


def job(folder, task, **spec):
    usual = {
        "objectives": [dict(each) for each in registry.find("tasks", task).objective_defaults],
        "student": {"network": NETWORKS[task], "options": STUDENT},
        "source": {"name": "dataset", "augmentation": "scale_crop_flip"},
        "training": TRAINING,
    }
    if task == "segmentation":
        usual["objectives"] += [{"name": "holistic", "weight": 0.1, "width": 4}, {"name": "pair_wise"}]
    made = job_of(folder, OUTPUTS[task], task=task, **usual | spec)
    made.values["teacher"] |= {"network": NETWORKS[task], "options": TEACHER, "input": INPUT}
    given = {"dataset": "inputs/dataset.safetensors", "evaluation": "inputs/dataset.safetensors"}
    return Job({**made.values, **given}, folder)


def report_of(folder):
    return json.loads((folder / "output" / "report.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(task, inputs, tmp_path_factory):
    folder = shutil.copytree(inputs, tmp_path_factory.mktemp("whole") / "job")
    made = job(folder, task, exports=["safetensors", "onnx"])
    check(made)
    (folder / "events.json").write_text(json.dumps(run_whole(made)))
    return folder


def test_a_run_reports_its_tasks_metrics_and_results_by_class(task, undisturbed):
    report = report_of(undisturbed)
    evaluation, main = report["evaluation"], registry.find("tasks", task).main_metric
    assert report["summary"]["main_metric"]["student"] == evaluation["student"][main]
    if task == "segmentation":
        assert evaluation["teacher"]["mean_iou"] > 0.5 and "iou/2" in evaluation["student"]
        assert len(evaluation["by_class"]["student"]["iou"]) == 3
        assert evaluation["by_class"]["teacher"]["recall"][0] > 0.5
    else:
        assert evaluation["teacher"][main] < 0.3 and evaluation["by_class"] is None


def test_previews_show_images_with_their_answers(task, undisturbed):
    from PIL import Image

    names = [
        event["path"] for event in json.loads((undisturbed / "events.json").read_text()) if event["event"] == "preview"
    ]
    found = {name.split("/")[-1].split("-")[0]: undisturbed / name for name in names}
    assert {"examples", "worst"} <= found.keys()
    with Image.open(found["examples"]) as picture:
        assert picture.size == (4 * (SIZE + 2) - 2, 8 * (SIZE + 2) - 2)


def test_the_files_of_a_student_run_elsewhere(task, undisturbed):
    import subprocess
    import sys

    output, task_names = undisturbed / "output", {"segmentation": "logits", "depth": "depth"}
    names = {path.name for path in output.iterdir()}
    assert {"student.safetensors", "student.onnx", "student.py"} <= names
    code = (
        "import onnxruntime, torch, student\n"
        "x = torch.randn(5, 3, 32, 32)\n"
        "session = onnxruntime.InferenceSession('student.onnx')\n"
        f"(found,) = session.run(['{task_names[task]}'], {{'image': x.numpy()}})\n"
        "with torch.no_grad():\n"
        "    expected = student.load()(x)\n"
        "assert (torch.from_numpy(found) - expected).abs().max() < 1e-3 * expected.abs().max(), 'differs'\n"
        "print(tuple(expected.shape))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=output, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str((5, OUTPUTS[task], SIZE, SIZE))


@pytest.mark.parametrize("at", [1, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def test_killed_anywhere_and_restored_bit_equal(task, inputs, undisturbed, tmp_path, at):
    folder = shutil.copytree(inputs, tmp_path / "killed")
    run_killed(job(folder, task), at, tmp_path / "restored")
    assert same_bits(student_of(undisturbed), student_of(tmp_path / "restored"))


@pytest.mark.parametrize("labels", ["none", "teacher"])
def test_images_without_labels_serve_as_substitutes(task, inputs, tmp_path, labels):
    folder = shutil.copytree(inputs, tmp_path / "job")
    objectives = [dict(registry.find("tasks", task).objective_defaults[1])]
    if labels == "teacher":
        objectives.append(dict(registry.find("tasks", task).ground_truth))
    source = {"name": "substitute", "labels": labels, "augmentation": "scale_crop_flip"}
    run_whole(job(folder, task, source=source, objectives=objectives, training={"steps": 2}))
    assert report_of(folder)["evaluation"]["images"] == SAMPLES


@pytest.mark.parametrize("name", ["attention_transfer", "nst", "hint"])
def test_objectives_on_features_work_on_the_pyramid(task, inputs, tmp_path, name):
    folder = shutil.copytree(inputs, tmp_path / "job")
    truth = dict(registry.find("tasks", task).ground_truth)
    events = run_whole(job(folder, task, objectives=[{"name": name}, truth], training={"steps": 2}))
    metrics = {key for event in events if event["event"] == "metrics" for key in event["values"]}
    assert any(key.startswith(f"{name}/fpn.output.") for key in metrics)


@pytest.mark.parametrize("action", [check, run_whole])
def test_objectives_on_rows_are_refused(task, inputs, tmp_path, action):
    folder = shutil.copytree(inputs, tmp_path / "job")
    with pytest.raises(SpecError) as caught:
        action(job(folder, task, objectives=[{"name": "kd"}]))
    assert [problem.pointer for problem in caught.value.problems] == ["/objectives/0/name"]


def test_synthesis_is_refused_with_the_reason(task, inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "job")
    made = job(folder, task, source={"name": "dafl"}, objectives=[{"name": "hint"}], training={"steps": 2})
    with pytest.raises(SpecError, match="use `substitute` with real images") as caught:
        check(made)
    assert [problem.pointer for problem in caught.value.problems] == ["/source"]


def test_a_teacher_that_knows_nothing_is_refused(task, inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "job")
    blank = networks.build(NETWORKS[task], OUTPUTS[task], read_contract(INPUT), TEACHER)
    torch.nn.init.zeros_(blank.head.weight)
    save_file(blank.state_dict(), folder / "inputs" / "teacher.safetensors")
    more = {"train.image": 2, f"train.{registry.find('tasks', task).field}": 2}
    double_dataset(folder / "inputs" / "dataset.safetensors", more)
    with pytest.raises(SpecError, match="at chance level"):
        run_whole(job(folder, task, training={"steps": 1}))


@pytest.mark.parametrize("task", ["segmentation"], indirect=True)
def test_another_normalisation_is_noticed_or_taken(task, inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "job")
    double_dataset(folder / "inputs" / "dataset.safetensors", {"train.image": 2, "train.mask": 2})

    def run(**spec):
        made = job(folder, task, training={"steps": 1}, **spec)
        made.values["teacher"]["input"] = INPUT | {"mean": [0.0] * 3, "std": [1 / 255] * 3}
        run_whole(made)

    with pytest.raises(
        SpecError, match=r"training images as its input says, and o[fn] .*standard deviations"
    ) as caught:
        run()
    assert caught.value.problems[0].pointer == "/teacher/input"
    assert "Upload the teacher with mean [" in caught.value.hint and "`auto`" in caught.value.hint
    run(contract="auto")
    found = report_of(folder)["teacher_check"]
    best = max(found["table"], key=lambda row: row["iou"])
    assert found["taken"]["name"] == best["name"] and best["iou"] > found["table"][0]["iou"] + 0.05


def double_dataset(path, keys):
    """Repeat the samples, since small datasets do not judge a teacher."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = {name: torch.cat([value] * keys.get(name, 1)) for name, value in load_file(path).items()}
    save_file(tensors, path, metadata)


def test_a_network_of_rows_is_refused(task, inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "job")
    with pytest.raises(SpecError, match="map of outputs"):
        check(job(folder, task, student={"network": "lenet5_half", "options": {}}))


@pytest.mark.slow
def test_two_ranks_train_the_same_student_as_one_process(task, inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "one")
    compare(job(folder, task, source={"name": "dataset", "augmentation": "none"}), folder)
