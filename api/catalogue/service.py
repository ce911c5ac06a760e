"""The catalogue and its entity tag, cached."""

import hashlib
import json
from functools import lru_cache

from api.catalogue.schemas import CatalogueBody
from models.spec.catalogue import catalogue


@lru_cache(maxsize=1)
def tagged_catalogue() -> tuple[CatalogueBody, str]:
    """The catalogue and its entity tag."""
    digest = hashlib.sha256(json.dumps(catalogue(), sort_keys=True).encode()).hexdigest()
    return CatalogueBody.model_validate(catalogue()), f'"{digest[:32]}"'
