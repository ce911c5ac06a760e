"""Client of Distillery, a service that distils vision networks."""

from distillery_client import errors
from distillery_client.client import Client
from distillery_client.errors import DistilleryError
from distillery_client.own_network import pack

__all__ = ["Client", "DistilleryError", "errors", "pack"]
