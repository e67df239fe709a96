# On a fresh machine: `make demo` draws one picture, `make test` runs every check and test.
VENV ?= .venv
PY := $(VENV)/bin/python
PROTOS := $(wildcard protos/craft_protos/*.proto)

.PHONY: env dev demo test storms check protos docs man tutorial constraints bench pocket clean

# What a user needs: the command and the daemon.
env: $(VENV)/.installed

# And what the checks and tests need.
dev: $(VENV)/.installed-dev

INSTALL = $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV)
	$(INSTALL) -e '.[daemon]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV)
	$(INSTALL) -e '.[daemon,dev]'
	touch $(VENV)/.installed $@

demo: env
	$(VENV)/bin/craft generate "a red apple"

# Bytecode is kept: it starts hundreds of processes.
test: check
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Hours of them: `make storms SHARE=0.1` makes a tenth. docs/reliability.md says what they prove.
storms: dev
	OMP_NUM_THREADS=1 $(PY) -m tests.storms --share $(or $(SHARE),1) $(if $(SEED),--seed $(SEED))

check: dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy cli daemon protos
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports
	$(PY) tests/check_generated.py

protos: dev
	$(PY) -m grpc_tools.protoc -I protos --python_out=protos --grpc_python_out=protos \
	  --mypy_out=protos --mypy_grpc_out=protos \
	  --plugin=protoc-gen-mypy=$(VENV)/bin/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(VENV)/bin/protoc-gen-mypy_grpc $(PROTOS)

docs: dev
	$(PY) -m docs.reasons

# From the commands, without the tools that `dev` installs.
man: env
	$(PY) -m docs.manual

tutorial: dev
	$(PY) -m docs.tutorial

constraints:
	(echo "# Exact versions, so that every set-up is the same one. Made with: make constraints"; \
	 $(PY) -m pip freeze --exclude-editable | sed 's/+cpu//' | grep -v -e '^-e' -e '^craftengine') > constraints.txt

bench: dev
	$(PY) -m benchmarks

pocket: dev
	$(PY) -m training.pocket

clean:
	rm -rf $(VENV) dist build
