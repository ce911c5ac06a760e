"""The catalogue over HTTP: every method and its parameters.

Belongs here: `GET /v1/catalogue`. Does not: the catalogue itself (`models/spec/catalogue.py`). May import `api/http`,
`api/dependencies` and `models`.
"""
