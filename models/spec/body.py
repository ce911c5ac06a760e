"""The base class and shared field types of all request bodies."""

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    StringConstraints,
    ValidationError,
    model_validator,
)

from models.spec.problems import Problem, complaint, with_names


class Body(BaseModel):
    """Part of a request. Unknown names, numbers written as strings, and infinite numbers are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="wrap")
    @classmethod
    def _unknown_names_are_compared(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            raise with_names(error, cls.model_fields) from None


def _id_of(prefix: str, what: str) -> Any:
    def checked(value: str) -> str:
        if not value.startswith(f"{prefix}_"):
            raise complaint(Problem("", f"must be the id of {what}, beginning with {prefix}_"))
        return value

    return AfterValidator(checked)


DatasetId = Annotated[str, StringConstraints(max_length=64), _id_of("dts", "a dataset")]
FileId = Annotated[str, StringConstraints(max_length=64), _id_of("fil", "a file")]

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Labels = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=63)],
        Annotated[str, StringConstraints(max_length=255)],
    ],
    Field(
        max_length=64,
        description="Your own key-value pairs. Lists can be filtered by them.",
        examples=[{"team": "vision"}],
    ),
]
