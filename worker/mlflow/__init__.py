"""Jobs as runs of an MLflow server: what is sent, how, and what is sent already.

Belongs here: everything about MLflow. Does not: inserting the row of a run (`worker/ledger/changes.py`). May import `models`.
"""
