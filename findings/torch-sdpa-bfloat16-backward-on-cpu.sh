#!/usr/bin/env bash
# PyTorch 2.11.0 on a CPU: over short sequences, such as the 25 frames that a video model's temporal attention sees, the
# backward pass of scaled_dot_product_attention takes several times as long in bfloat16 as in float32, while long
# sequences gain. So mixed precision made a training slower. Exits with 0 where that is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.11.0 numpy==2.2.6
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention as attention

print("PyTorch", torch.__version__, torch.backends.cpu.get_cpu_capability())


def seconds(dtype, tokens, batch):
    """The fastest of five calls, forwards and backwards."""
    q, k, v = (torch.randn(batch, 1, tokens, 64).to(dtype).requires_grad_() for _ in range(3))
    slope, best = torch.randn(batch, 1, tokens, 64).to(dtype), [float("inf")] * 2
    for _ in range(5):
        at = [time.perf_counter()]
        out = attention(q, k, v)
        at.append(time.perf_counter())
        out.backward(slope)
        at.append(time.perf_counter())
        best = [min(old, end - start) for old, start, end in zip(best, at, at[1:])]
    return best


for tokens, batch in ((25, 640), (1024, 16)):
    full, half = (seconds(dtype, tokens, batch) for dtype in (torch.float32, torch.bfloat16))
    ratios = [slow / fast for slow, fast in zip(half, full)]
    print(f"{tokens} tokens: bfloat16 takes {ratios[0]:.1f} of float32's time forwards, {ratios[1]:.1f} backwards")
    if tokens == 25 and ratios[1] < 1.5:
        sys.exit("the backward pass of short sequences is no longer slower in bfloat16: this has changed")
PYTHON
