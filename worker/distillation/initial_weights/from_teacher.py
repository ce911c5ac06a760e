"""The ways to derive a student's initial weights from its teacher's, by their name in a job's spec."""

from worker.distillation.initial_weights.neuron_merging import merged
from worker.distillation.initial_weights.slices import sliced

FROM_TEACHER = {"teacher": sliced, "neuron_merging": merged}
