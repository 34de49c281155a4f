"""The GPU kit: what the daemon does on a machine with an NVIDIA GPU, measured in some minutes.

With a package registry:

    pip install '.[cuda]' && python -m tests.gpu OUT         (`.[cuda,tensorrt]` for TensorRT too)

`OUT` gets `table.txt`, `results.json` and `log.txt`. `--provider cpu --quick` tries the kit itself on any machine;
`--only sessions,batches` runs some sections; `--budget 200` stops after so many seconds, the most telling sections
come first. A section that fails or runs out of its time leaves its error in the table, and the next one runs.

Without a registry, on another machine first (it needs that GPU's architecture, 90 for an H100):

    python -m tests.gpu.carry.wheels .gpu --python 3.12 --sm 90 --part-mb 44

then copy `.gpu/parts` there, in as many steps as it takes, and this checkout:

    python3 -m tests.gpu.carry.join PARTS /tmp/site
    PYTHONPATH=/tmp/site python3 -m tests.gpu OUT

That machine's Python must bring what `--there` of the first command names, and CUDA's libraries: PyTorch does.
"""
