"""`/catalogue`."""

from typing import Any

from fastapi import APIRouter, Response

from api.catalogue.schemas import CatalogueBody
from api.catalogue.service import tagged_catalogue
from api.dependencies import JobsRead
from api.http.conditional import NOT_MODIFIED, IfNoneMatch, conditional
from api.http.problem_documents import problems

router = APIRouter(tags=["catalogue"])


@router.get(
    "/catalogue",
    summary="Show every method and network",
    operation_id="get_catalogue",
    response_model=CatalogueBody,
    responses=problems(422) | NOT_MODIFIED,
)
def show_catalogue(key: JobsRead, response: Response, if_none_match: IfNoneMatch = None) -> Any:
    """Every objective, procedure, source, transform, network and task: description, paper, requirements, parameters."""
    return conditional(response, *tagged_catalogue(), if_none_match)
