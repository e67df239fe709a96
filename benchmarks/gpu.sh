#!/bin/sh
# Every figure that needs a GPU, within eight minutes: see benchmarks/gpu.py. `--tiny --device cpu` tries it without one.
cd "$(dirname "$0")/.." && exec "${PYTHON:-.venv/bin/python}" -m benchmarks.gpu "$@"
