"""How many threads a job computes with; on Intel's processors MKL promises that their number changes no result."""

import os
import sys


def set_threads(threads: int) -> None:
    """Tell numerical libraries their threads; torch too, if the script has imported it already.

    A matrix product over a long inner dimension (the gradient through the LM head: 2·|V|·d) is split among threads, so
    that its sums would be formed in another order for another number of them. MKL, which computes torch's products on a
    CPU, forms them in one order if it is asked to before its first call; what the user asks of it stands.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
