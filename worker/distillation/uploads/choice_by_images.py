"""Which of several networks with the same weights it is: the one that names labelled images best."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.contract_check.comparison import Measured, clearly_better, compare, table
from worker.distillation.contract_check.normalisations import Normalisation
from worker.distillation.data.images import fit
from worker.distillation.errors import UploadError
from worker.distillation.uploads.network_search import Proposal

MOST = 512
"""Images that each network is measured on."""


def chosen_by_images(
    proposals: Sequence[Proposal], contract: InputContract, image_NCHW: Tensor, label_N: Tensor
) -> tuple[Proposal, str]:
    """The proposal that is clearly best on uint8 images, and a sentence that says by how much.

    Raises:
        UploadError: none is clearly better than all others.
    """
    order = torch.randperm(len(label_N), generator=torch.Generator().manual_seed(0))[:MOST]
    image, label = fit(image_NCHW[order], contract), label_N[order]
    rows = sorted((_measured(each, contract, image, label) for each in proposals), key=lambda row: -row.accuracy)
    first, *others = rows
    if not all(clearly_better(other, first, label) for other in others):
        raise UploadError(
            f"the weights fit several networks, and {len(label)} labelled images do not tell which it is: {table(rows)}",
            "Say which it is as `network` and `options`, and check the mean and std of `input`.",
        )
    best = next(each for each in proposals if str(each) == first.name)
    words = f"the weights fit {len(rows)} networks, of which {best} does best on {len(first.right)} labelled images"
    return best, f"{words}: {table(rows)}"


def _measured(proposal: Proposal, contract: InputContract, image: Tensor, label: Tensor) -> Measured:
    network = proposal.build(contract)
    network.load_state_dict(proposal.matched(network).state)
    way = Normalisation(str(proposal), contract.mean, contract.std)
    return compare(network.eval(), image, label, way, ())[0]
