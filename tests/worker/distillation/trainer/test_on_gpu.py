"""A step on a GPU: it does not wait for the device. Skipped without a GPU."""

import shutil

import pytest
import torch

from benchmarks.loop.engine_loop import job_of, stage_of, write_inputs
from benchmarks.loop.setting import setting
from worker.distillation.introspection.taps import Tapped
from worker.distillation.precision import use_fast_kernels
from worker.distillation.teaching.quick_teacher import QuickTeacher
from worker.distillation.training import Training

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@NEEDS_GPU
@pytest.mark.parametrize(
    "training", [{}, {"teacher_answers": "cached"}, {"average_weights": 0.99, "optimizer": "adamw"}]
)
def test_a_step_does_not_wait_for_the_device(training, tmp_path):
    given = setting("resnet14_cifar", "resnet8_cifar", 64, 16)
    write_inputs(given, tmp_path)
    source = {"augmentation": "standard", "views": 2}
    run = stage_of(job_of(given, tmp_path, source, training, "cuda"))
    for _ in range(3):
        run.advance()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.advance()  # of the epoch that has begun
    finally:
        torch.cuda.set_sync_debug_mode("default")
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)


def test_a_cpu_is_left_as_it_is():
    before = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    use_fast_kernels(torch.device("cpu"), tf32=True)
    assert (torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()) == before


def test_graphs_are_for_gpus_alone():
    given = setting("resnet8_cifar", "resnet8_cifar", 8, 4)
    teacher = Tapped(given.networks()[0], torch.zeros(2, 3, 32, 32))
    made = QuickTeacher(teacher, Training(), graphs=True)
    image = given.normalised(4)
    assert torch.equal(made(image), teacher(image).logits)
