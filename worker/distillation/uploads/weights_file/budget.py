"""A limit on the work that an untrusted file may cause."""

from worker.distillation.errors import UploadError


class Budget:
    """A number of steps. Every walk, copy or construction takes some, so that shared objects cannot multiply the work."""

    def __init__(self, steps: int, what: str = "the checkpoint"):
        self._left = steps
        self._steps = steps
        self._what = what

    def spend(self, steps: int = 1) -> None:
        """Use up steps.

        Raises:
            UploadError: too few are left.
        """
        self._left -= steps
        if self._left < 0:
            raise UploadError(
                f"{self._what} contains too many objects: reading it needs more than {self._steps} steps",
                "Save only the weights with `torch.save(network.state_dict(), path)`, and upload that file.",
            )
