"""A frozen teacher whose logits alone are read: folded, in a precision of its own, and on a GPU as a CUDA graph."""

from collections.abc import Callable

import torch
from torch import Tensor

from worker.distillation.introspection.taps import Tapped
from worker.distillation.precision import single
from worker.distillation.teaching.folding import folded
from worker.distillation.training import Training

MOST_GRAPHS = 4
"""Number of batch shapes for which a graph is kept."""
WARM_UPS = 3


class QuickTeacher:
    """Gives a frozen network's logits, and nothing else. `norms_folded` is the number of BatchNorm layers folded."""

    def __init__(self, teacher: Tapped, training: Training, graphs: bool = False):
        self.training = training
        self.network, self.norms_folded = teacher.network, 0
        if training.fold_teacher:
            self.network, self.norms_folded = folded(teacher.network, teacher.example)
        self._run = Graphed(self._pass) if graphs and teacher.example.device.type == "cuda" else self._pass

    @torch.no_grad()
    def __call__(self, image_BCHW: Tensor) -> Tensor:
        """Logits (B, K), at least float32."""
        return self._run(image_BCHW)

    def _pass(self, image_BCHW: Tensor) -> Tensor:
        with self.training.teacher_autocast(image_BCHW.device):
            return single(self.network(image_BCHW))


def quick_teacher(teacher: Tapped | None, training: Training, graphs: bool = False) -> QuickTeacher | None:
    """A quick teacher where a job asks for one; None where the teacher runs like the student."""
    asked = training.fold_teacher or training.teacher_precision != "training" or graphs
    return QuickTeacher(teacher, training, graphs) if teacher is not None and asked else None


def ignored(training: Training) -> str:
    """Words for a stage's log: the options that have no effect on a teacher of which more is read than one row of logits for each image."""
    options = ("fold_teacher", "teacher_precision", "teacher_answers")
    asked = [name for name in options if getattr(training, name) != getattr(Training, name)]
    if not asked:
        return ""
    return f"{', '.join(asked)} ignored, because more of the teacher is read than one row of logits for each image"


class Graphed:
    """A function of one tensor on a GPU, recorded once for every shape and then replayed as a CUDA graph.

    A replay launches all kernels at once, so that a small network does not wait for Python. For more than `MOST_GRAPHS` shapes the
    function runs as it is.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]):
        self.function = function
        self._graphs: dict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        key = (x.shape, x.dtype, x.stride())
        if key not in self._graphs:
            if len(self._graphs) == MOST_GRAPHS:
                return self.function(x)
            self._graphs[key] = self._record(x)
        graph, given, result = self._graphs[key]
        given.copy_(x)
        graph.replay()
        return result.clone()

    def _record(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given = x.clone(memory_format=torch.preserve_format)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose their kernels and memory before the recording
            for _ in range(WARM_UPS):
                self.function(given)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self.function(given)
        return graph, given, result
