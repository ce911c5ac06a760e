"""Retrieval metrics: how well embeddings find images of the same identity, and separate pairs of different ones.

Every query is compared with the gallery by the cosine of the two embeddings. An image is never compared with itself,
nor, if cameras are known, with one of the same identity and the same camera, as on Market-1501 (Zheng et al., "Scalable
person re-identification: a benchmark", ICCV 2015). Queries without any image of their identity left count in no metric.

Shapes: N samples, Q queries, G gallery, D dimensions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.process.heartbeat import pulse

PAIRS_AT_ONCE = 1 << 22
LARGEST_RATE = 1e-2


@dataclass(frozen=True)
class Ranked:
    """The rankings of some queries.

    `match` (Q, G) says of each rank of a query, from near to far, whether the image there has the query's identity;
    `nearest` (Q,) is the index of the sample that comes first; `genuine` and `impostor` hold the cosines of the pairs
    of the same identity and of different ones.
    """

    match: Tensor
    nearest: Tensor
    genuine: Tensor
    impostor: Tensor


def rankings(
    embedding_ND: Tensor, label_N: Tensor, camera_N: Tensor | None = None, query_N: Tensor | None = None
) -> Iterator[Ranked]:
    """All queries, in parts: the samples whose `query_N` is not 0 against the others, or without `query_N` each against
    all others.

    Images that must not be compared are ranked last and are no match. Ties keep the gallery's order.
    """
    unit = F.normalize(embedding_ND, dim=1)
    everything = torch.arange(len(unit), device=unit.device)
    queries, gallery = (
        (everything, everything)
        if query_N is None
        else ((query_N != 0).nonzero()[:, 0], (query_N == 0).nonzero()[:, 0])
    )
    for chosen in queries.split(max(1, PAIRS_AT_ONCE // max(1, len(gallery)))):
        pulse()
        cosine = unit[chosen] @ unit[gallery].mT
        same = label_N[chosen][:, None] == label_N[gallery]
        left_out = chosen[:, None] == gallery
        if camera_N is not None:
            left_out |= same & (camera_N[chosen][:, None] == camera_N[gallery])
        order = cosine.masked_fill(left_out, -2.0).argsort(dim=1, descending=True, stable=True)
        wanted = same & ~left_out
        yield Ranked(wanted.gather(1, order), gallery[order[:, 0]], cosine[wanted], cosine[~same & ~left_out])


def average_precision(match_QG: Tensor) -> Tensor:
    """The mean, over the ranks (Q, G) of matches, of the share of matches up to there (Q,); NaN without any."""
    places = torch.arange(1, match_QG.shape[1] + 1, device=match_QG.device)
    precision = match_QG.cumsum(1).double() / places
    return (precision * match_QG).sum(1) / match_QG.sum(1)


def first_match(match_QG: Tensor) -> Tensor:
    """The rank (Q,), from 0, of the nearest match of queries that have one."""
    return match_QG.int().argmax(1)


def accepted(genuine: Tensor, impostor: Tensor, count: int, rate: float) -> float:
    """The true accept rate at a false accept rate of at most `rate`.

    That is the share of genuine pairs with a cosine above the smallest threshold that at most that share of the `count`
    impostor pairs exceeds. `impostor` holds at least the `rate * count + 1` largest cosines of those pairs.
    """
    threshold = impostor.sort(descending=True).values[int(rate * count)]
    return float((genuine > threshold).double().mean())


def measure(
    embedding_ND: Tensor,
    label_N: Tensor,
    camera_N: Tensor | None = None,
    query_N: Tensor | None = None,
    ranks: tuple[int, ...] = (1, 5, 10),
    rates: tuple[float, ...] = (LARGEST_RATE, 1e-3, 1e-4),
) -> dict[str, float]:
    """Metrics of embeddings, as documented in `tasks/embedding.py`.

    A rate of less than one impostor pair cannot be measured, and its metric is left out.
    """
    precision = []
    first = []
    genuine = []
    impostor, impostors = embedding_ND.new_empty(0), 0
    queries = len(label_N) if query_N is None else int((query_N != 0).sum())
    # only the largest cosines of all pairs can become a threshold
    most = int(max(rates) * queries * len(label_N)) + 1
    for part in rankings(embedding_ND, label_N, camera_N, query_N):
        found = part.match[part.match.any(1)]
        precision.append(average_precision(found))
        first.append(first_match(found))
        genuine.append(part.genuine)
        impostors += len(part.impostor)
        impostor = torch.cat([impostor, part.impostor])
        impostor = impostor.topk(min(len(impostor), most)).values
    places, true = torch.cat(first), torch.cat(genuine)
    if not len(places):
        return {}
    name = "recall_at" if camera_N is None else "cmc"
    metrics = {"mean_average_precision": float(torch.cat(precision).mean()), "queries": float(len(places))}
    metrics |= {f"{name}_{rank}": float((places < rank).double().mean()) for rank in ranks}
    measured = [rate for rate in rates if rate * impostors >= 1]
    return metrics | {f"tar_at_far_{rate:g}": accepted(true, impostor, impostors, rate) for rate in measured}
