"""Client of Distillery, a service that distils vision networks."""
