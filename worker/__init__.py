"""The worker: a Celery shell around the engine in `worker.distillation`."""
