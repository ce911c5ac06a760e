"""Mutual learning: the mean KL from the peers."""

from torch.nn.functional import cross_entropy, kl_div

from worker.distillation.objective import Objective, ObjectiveNeeds


class ToyPeers(Objective):
    """Cross-entropy with the label, and the divergence from every peer."""

    needs = ObjectiveNeeds(fields=("label",), teacher=False)

    def forward(self, step):
        ours = step.student.logits.log_softmax(1)
        divergences = [kl_div(ours, peer.logits.softmax(1), reduction="batchmean") for peer in step.peers]
        return {"label": cross_entropy(step.student.logits, step.label), "peers": sum(divergences) / len(divergences)}
