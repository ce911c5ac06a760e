"""Embedding: a vector for each sample, close to those of the same identity.

Shapes: N samples, D dimensions.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.task import Predict, Task, TeacherAssessment, exceeds_chance, predict
from worker.distillation.tasks.retrieval import average_precision, measure, rankings

if TYPE_CHECKING:
    from worker.distillation.data.images import Images

ASSESSED_AT_MOST = 1024


class Embedding(Task):
    """A vector for each sample, by which images of the same identity are retrieved; there are no classes to predict.

    The dataset's labels are identities, and a test set may have others than the training set. Images of the field
    `query` are retrieved among the others; without that field, each image is retrieved among all others.
    """

    labels_are_outputs = False
    output = "embedding"
    least_outputs = 1
    ground_truth = {"name": "triplet"}
    objective_defaults = ({"name": "relational", "weight": 1.0, "distance": 1.0, "angle": 2.0},)
    main_metric = "mean_average_precision"

    def check_labels(self, images: "Images", outputs: int, pointer: str) -> None:
        if "label" not in images.fields or images.label.ndim != 1:
            raise SpecError([Problem(pointer, "does not have one identity for each image")], "Choose another dataset.")
        if len(images.label.unique()) == len(images):
            words = "has no two images of one identity, so that retrieval cannot be measured"
            raise SpecError([Problem(pointer, words)], "Choose a dataset with several images of an identity.")

    def alike(self, outputs: int, others: int) -> bool:
        return True

    def evaluate(
        self, network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
    ) -> dict[str, float]:
        """The metrics of retrieval.

        `mean_average_precision`; `recall_at_K`, the share of queries with an image of their identity among the K
        nearest, called `cmc_K` (cumulative matching characteristic) if cameras are known; `tar_at_far_R`, the true
        accept rate of pairs at a false accept rate of at most R; `queries`, the number of queries with at least one
        match; with a teacher `agreement`, the share of queries for which both networks retrieve the same image first.
        """
        given, teacher = predict(network_fn, images, batch_size, teacher_fn)
        known = {name: value.cpu() for name, value in images.fields.items() if name in ("label", "camera", "query")}
        label = known["label"]
        camera = known.get("camera")
        query = known.get("query")
        metrics = measure(given, label, camera, query)
        if teacher is not None:
            nearest = [
                torch.cat([each.nearest for each in rankings(x, label, camera, query)]) for x in (given, teacher)
            ]
            metrics["agreement"] = float((nearest[0] == nearest[1]).double().mean())
        return metrics

    def assess_teacher(self, teacher_fn: Predict, images: "Images", batch_size: int) -> TeacherAssessment:
        """Assesses the mean average precision of the images among themselves, against that with shuffled identities."""
        sample = images.at(torch.linspace(0, len(images) - 1, min(len(images), ASSESSED_AT_MOST)).long())
        given, _ = predict(teacher_fn, sample, batch_size)
        label = sample.label.cpu()
        found = _mean_precision(given, label)
        words = f"mean average precision {found:.3f} on {len(sample)} images"
        return TeacherAssessment(
            words, not exceeds_chance(found, lambda order: _mean_precision(given, label[order]), len(label))
        )


def _mean_precision(embedding_ND: Tensor, label_N: Tensor) -> float:
    return float(torch.cat([average_precision(part.match) for part in rankings(embedding_ND, label_N)]).nanmean())
