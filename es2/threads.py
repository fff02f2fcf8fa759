"""How many threads a job computes with; sums taken in another order may differ in their last digit."""

import os
import sys


def set_threads(threads: int) -> None:
    """Tell numerical libraries their threads; torch too, if the script has imported it already."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
