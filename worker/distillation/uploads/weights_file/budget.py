"""How much work a stranger's file may cause."""

from worker.distillation.errors import UploadError


class Budget:
    """Steps that are left; everything that walks, copies or builds spends some, so that sharing cannot multiply work."""

    def __init__(self, steps: int, what: str = "the checkpoint"):
        self._left, self._steps, self._what = steps, steps, what

    def spend(self, steps: int = 1) -> None:
        """Take so many steps.

        Raises:
            UploadError: none are left.
        """
        self._left -= steps
        if self._left < 0:
            raise UploadError(
                f"{self._what} holds too many objects: reading it takes more than {self._steps} steps",
                "Save the weights alone with `torch.save(network.state_dict(), path)`, and upload that file.",
            )
