"""HTTP itself, whatever the resource: bodies, errors as problem documents, conditions, ranges, digests, pages of a list.

Belongs here: what two resources need of the protocol. Does not: anything that knows a teacher, a dataset or a job. May
import `models`, and nothing else of `api`.
"""
