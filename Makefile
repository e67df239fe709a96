# On a fresh machine: `make demo` draws one picture, `make test` runs every check and test.
VENV ?= .venv
PY := $(VENV)/bin/python
PROTOS := $(wildcard protos/craft_protos/*.proto)

.PHONY: env demo test check protos docs tutorial constraints bench pocket clean

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[daemon,dev]'
	touch $@

demo: env
	$(VENV)/bin/craft generate "a red apple"

test: check
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile

check: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy cli daemon protos
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports
	$(PY) tests/check_generated.py

protos: env
	$(PY) -m grpc_tools.protoc -I protos --python_out=protos --grpc_python_out=protos \
	  --mypy_out=protos --mypy_grpc_out=protos \
	  --plugin=protoc-gen-mypy=$(VENV)/bin/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(VENV)/bin/protoc-gen-mypy_grpc $(PROTOS)

docs: env
	$(PY) -m docs.reasons

tutorial: env
	$(PY) -m docs.tutorial

constraints:
	(echo "# Exact versions, so that every set-up is the same one. Made with: make constraints"; \
	 $(PY) -m pip freeze --exclude-editable | sed 's/+cpu//' | grep -v -e '^-e' -e '^craftengine') > constraints.txt

bench: env
	$(PY) -m benchmarks

pocket: env
	$(PY) -m training.pocket

clean:
	rm -rf $(VENV) dist build
