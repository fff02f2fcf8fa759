"""The number of threads changes no result: what a job computes with two threads is what it computes with one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PRODUCTS = """
import hashlib, os, sys, torch
from es2.threads import set_threads
set_threads(int(sys.argv[1]))
assert torch.get_num_threads() == int(sys.argv[1])
draw = torch.Generator().manual_seed(0)
states = torch.randn(40, 64, generator=draw, requires_grad=True)
head = torch.randn(49152, 64, generator=draw)
torch.log_softmax(states @ head.T, dim=-1)[:, 0].sum().backward()
print(os.environ["MKL_CBWR"], hashlib.sha256(states.grad.numpy().tobytes()).hexdigest())
"""
CPUINFO = Path("/proc/cpuinfo")


def gradient(threads: int, **environment: str) -> list[str]:
    """What is asked of MKL, and the hash of a gradient through an LM head, computed in a process of its own."""
    variables = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"} | environment
    command = [sys.executable, "-c", PRODUCTS, str(threads)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch computes its products without MKL")
@pytest.mark.skipif(
    not (CPUINFO.is_file() and "GenuineIntel" in CPUINFO.read_text()), reason="MKL promises it for Intel's processors"
)
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a second core is needed")
def test_the_gradient_through_the_head_is_the_same_with_two_threads():
    assert gradient(1) == gradient(2)


def test_what_the_user_asks_of_mkl_stands():
    assert gradient(1)[0] == "AUTO,STRICT"
    assert gradient(1, MKL_CBWR="COMPATIBLE")[0] == "COMPATIBLE"
