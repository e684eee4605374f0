"""Peak memory of one training step of a large adapter, with and without gradient checkpointing.

python tests/benchmarks/checkpointing.py
"""

import subprocess
import sys

STEP = """
import sys, torch
from align_cache.adapters.pair import build_adapter

def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(row.split()[1]) for row in status if row.startswith("VmHWM")) / 1000

checkpointing = sys.argv[1] == "on"
adapter = build_adapter(
    "mlp", 768, 768, hidden_dims=(4096,) * 4, dropout=0.1, gradient_checkpointing=checkpointing
)
rows, before = torch.randn(8192, 768), peak_mb()
adapter(rows).square().sum().backward()
print(f"gradient_checkpointing {sys.argv[1]:>3}: {peak_mb() - before:,.0f} MB beyond the model and its input")
"""


def main() -> None:
    print("four hidden layers of 4,096, 8,192 rows, one forward and backward pass on the CPU", flush=True)
    for setting in ("off", "on"):
        subprocess.run([sys.executable, "-c", STEP, setting], check=True)


if __name__ == "__main__":
    main()
