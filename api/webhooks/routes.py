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
Delivery = Annotated[str, Path(max_length=64, description="Id of the delivery: its `webhook-id`.")]


@router.post(
    "/webhooks/secret",
    summary="Create a webhook secret",
    operation_id="make_webhook_secret",
    status_code=201,
    response_model=NewSecretBody,
    responses=problems(422),
)
def make_secret(key: JobsWrite, response: Response) -> NewSecretBody:
    """Creates the key's first secret or replaces the current one. For one day after that, messages are signed with the old
    secret too, so that receivers can switch. The secret is in this response only and is never shown again."""
    response.headers["Cache-Control"] = "no-store"
    return service.make_secret(key)


@router.get(
    "/webhooks/secret",
    summary="Show when the webhook secret was created",
    operation_id="get_webhook_secret",
    response_model=SecretBody,
    responses=problems(404, 422),
)
def show_secret(key: JobsRead) -> SecretBody:
    """Each key has one. The secret itself is never shown again: create a new one if it is lost."""
    return service.show_secret(key)


@router.get(
    "/jobs/{identifier}/webhook-deliveries",
    summary="List a job's webhook deliveries",
    operation_id="list_webhook_deliveries",
    response_model=Page[DeliveryBody],
    responses=problems(400, 404, 422),
)
def list_deliveries(key: JobsRead, identifier: Identifier, window: CurrentWindow) -> Page[DeliveryBody]:
    """Newest first, with every try. Of a receiver's response, only the status code is stored."""
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
    """Sends the same message with the same id and a new signature. The delivery must be delivered, failed or disabled."""
    return service.redeliver(key, identifier, delivery)
