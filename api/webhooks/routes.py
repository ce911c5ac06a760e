"""`/webhooks/secret` and `/jobs/{id}/webhook-deliveries`."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.dependencies import CurrentWindow, Identifier, JobsRead, JobsWrite
from api.http.bodies import StrictRoute
from api.http.paging import Page
from api.http.problem_documents import problems
from api.webhooks import service
from api.webhooks.schemas import DeliveryBody, NewSecretBody, SecretBody

router = APIRouter(tags=["webhooks"], route_class=StrictRoute)
Delivery = Annotated[str, Path(max_length=64, description="The `webhook-id`.")]


@router.post(
    "/webhooks/secret",
    summary="Make a webhook secret",
    operation_id="make_webhook_secret",
    status_code=201,
    response_model=NewSecretBody,
    responses=problems(422),
)
def make_secret(key: JobsWrite, response: Response) -> NewSecretBody:
    """The first, or a new one in the place of the one that is there, which signs too for a day, so that receivers can
    change over. It is shown in this answer and never again."""
    response.headers["Cache-Control"] = "no-store"
    return service.make_secret(key)


@router.get(
    "/webhooks/secret",
    summary="Show when the webhook secret was made",
    operation_id="get_webhook_secret",
    response_model=SecretBody,
    responses=problems(404, 422),
)
def show_secret(key: JobsRead) -> SecretBody:
    """Each key has one. The secret itself is not shown again: make a new one if it is lost."""
    return service.show_secret(key)


@router.get(
    "/jobs/{identifier}/webhook-deliveries",
    summary="List a job's webhook deliveries",
    operation_id="list_webhook_deliveries",
    response_model=Page[DeliveryBody],
    responses=problems(400, 404, 422),
)
def list_deliveries(key: JobsRead, identifier: Identifier, window: CurrentWindow) -> Page[DeliveryBody]:
    """The newest first, with every try. Of an answer, nothing but its status code is kept."""
    return service.deliveries(key, identifier, window)


@router.post(
    "/jobs/{identifier}/webhook-deliveries/{delivery}/redeliver",
    summary="Deliver a message again",
    operation_id="redeliver_webhook",
    status_code=202,
    response_model=DeliveryBody,
    responses=problems(404, 409, 422),
)
def redeliver(key: JobsWrite, identifier: Identifier, delivery: Delivery) -> DeliveryBody:
    """The same message under the same id, signed anew, once it is over: delivered, failed or disabled."""
    return service.redeliver(key, identifier, delivery)
