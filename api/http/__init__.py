"""HTTP for all resources: bodies, problem documents, conditional requests, ranges, digests, pagination.

Belongs here: parts of the protocol that at least two resources need. Does not: anything specific to teachers, datasets
or jobs. May import `models`, and nothing else of `api`.
"""
