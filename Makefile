# Every command of the course. `make` alone lists them; CONTRIBUTING.md says more.
# Works with GNU make 3.81 and newer, from a path with spaces, and offline once installed.
# Options: PYTHON=python3.12 (used once, to make .venv), PIP_ARGS="..." (for installing),
# LAB_ARGS="--no-browser" (for JupyterLab), ARGS="-k memory" (for the other commands).

PYTHON ?= python3
UV ?= uv
PIP_ARGS ?=
LAB_ARGS ?=
ARGS ?=

# A symlink, not a script: it survives moving the folder, and a space in its path.
VENV_PYTHON = .venv/bin/python
READY = .venv/.ready
BROWSER_READY = .venv/.ready-browser
SLIDES_READY = .venv/.ready-slides
INSTALL = $(VENV_PYTHON) -m pip install --disable-pip-version-check $(PIP_ARGS) \
	-c requirements-lock.txt
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 10))
# As an address, not as a file: JupyterLab would show only the file's folder, and no labs.
FIRST_LESSON = /lab/tree/notebooks/00_start_here.ipynb
OFFLINE = The installation did not finish (see the message above). Check the network and the \
	free disk space, then run the same command again: it goes on from here.

.DEFAULT_GOAL := help
.PHONY: help venv check-env lab test unit nbval browser-venv slides-venv lint build my-labs slides \
	grade preflight bench record prove lock clean-venv FORCE

help: ## list the commands
	@echo 'make <command>:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1@\2/p' Makefile | \
		while IFS=@ read -r name text; do printf '%-18s%s\n' "  $$name" "$$text"; done

# The stamp is the last thing written, so an interrupted installation is never taken as ready.
# A .venv whose Python has gone (a system upgrade removed it) is made again.
ifneq ($(shell $(VENV_PYTHON) -c "print('runs')" 2>/dev/null),runs)
$(READY): FORCE
endif

$(READY): requirements.txt requirements-lock.txt
	@rm -f $(READY)
	@$(VENV_PYTHON) -c 'import pip; $(NEW_ENOUGH)' 2>/dev/null || { \
		"$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null || { \
			echo 'The course needs Python 3.10 or newer, and "$(PYTHON)" is older or missing:' \
				'name one that you have, for example `make venv PYTHON=python3.12`.' >&2; exit 1; }; \
		echo 'Making .venv (once; then the packages, a few minutes) ...'; \
		"$(PYTHON)" -m venv --clear .venv || { rm -rf .venv; \
			echo 'Python could not make .venv (see the message above); on Debian and Ubuntu' \
				'run `sudo apt install python3-venv`, then this command again.' >&2; exit 1; }; }
	@$(INSTALL) -r requirements.txt || { echo '$(OFFLINE)' >&2; exit 1; }
	@touch $(READY)

$(BROWSER_READY): $(READY) requirements-browser.txt
	@$(INSTALL) -r requirements-browser.txt || { echo '$(OFFLINE)' >&2; exit 1; }
	@touch $(BROWSER_READY)

# Without dependencies: of sphinx-revealjs only the files of reveal.js are used.
$(SLIDES_READY): $(READY) requirements-slides.txt
	@$(INSTALL) --no-deps -r requirements-slides.txt || { echo '$(OFFLINE)' >&2; exit 1; }
	@touch $(SLIDES_READY)

venv: $(READY) ## make .venv and install the packages (does nothing when it is ready)

check-env: $(READY) ## check Python, packages, processor, memory, disk
	@$(VENV_PYTHON) -m utils.check_env

lab: check-env ## set up, check, open JupyterLab on lesson 00
	@root=; if [ "$$(id -u)" = 0 ]; then root=--allow-root; fi; \
	exec $(VENV_PYTHON) -m jupyterlab $$root --LabApp.default_url=$(FIRST_LESSON) $(LAB_ARGS)

# The browser tests run wherever there is a browser: playwright is added where Chromium is found.
CHROMIUM = $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

test: check-env $(if $(CHROMIUM),$(BROWSER_READY)) ## set up, check, run the unit tests and compare every notebook (strict nbval)
	$(VENV_PYTHON) -m pytest --nbval $(ARGS)

unit: $(READY) ## only the unit tests
	$(VENV_PYTHON) -m pytest $(ARGS) tests

nbval: $(READY) ## only the notebooks, run and compared
	$(VENV_PYTHON) -m pytest --nbval $(ARGS) notebooks labs solutions

browser-venv: $(BROWSER_READY) ## add what the browser tests need (Chromium comes from the system)

slides-venv: $(SLIDES_READY) ## add what `make slides` needs

lint: $(READY) ## ruff
	$(VENV_PYTHON) -m ruff check $(ARGS) .

build: $(READY) ## notebooks/, labs/ and solutions/ from sources/
	$(VENV_PYTHON) -m utils.build $(ARGS)

my-labs: $(READY) ## a private copy of the labs to work in
	$(VENV_PYTHON) -m utils.my_labs $(ARGS)

slides: $(SLIDES_READY) ## one deck a lesson in slides/, for a projector and without a network
	$(VENV_PYTHON) -m utils.slides $(ARGS)

grade: $(READY) ## check all submitted labs: ARGS="FOLDER", or ARGS="--rehearse"
	$(VENV_PYTHON) -m utils.grade $(ARGS)

# What needs least time comes first; the last part needs Linux. Each part ends make when it fails.
preflight: check-env ## the evening before a workshop: all of it, once; ARGS goes to the notebooks' run
	@$(MAKE) --no-print-directory slides ARGS=
	@$(MAKE) --no-print-directory nbval
	@$(MAKE) --no-print-directory grade ARGS=--rehearse
	@echo 'Ready for the workshop: environment, slides, notebooks and grading.'

bench: $(READY) ## how much the instruments themselves cost
	$(VENV_PYTHON) -m utils.bench $(ARGS)

record: $(READY) ## run the timed experiments on this machine and keep them for the lessons
	$(VENV_PYTHON) -m utils.record $(ARGS)

prove: $(READY) ## run and compare every notebook many times: ARGS="--times 20 --load 1"
	$(VENV_PYTHON) -m utils.prove $(ARGS)

# uv keeps the versions found in .venv and adds those for other Pythons and systems. The packages
# of torch's CUDA build are left out: torch names them exactly itself, and a build of torch for
# another CUDA, or for none, must stay installable.
lock: $(BROWSER_READY) ## write requirements-lock.txt from what .venv holds (needs uv)
	@command -v "$(UV)" >/dev/null || { echo 'uv is not installed: `python3 -m pip install uv`' \
		'in any environment, then `make lock UV=path/to/uv`.' >&2; exit 1; }
	@$(VENV_PYTHON) -m pip freeze | sed 's/+.*//' > .venv/lock.body
	@"$(UV)" pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
		--no-emit-index-url $(ARGS) requirements.txt requirements-browser.txt \
		--output-file .venv/lock.body > /dev/null
	@grep '^#' requirements-lock.txt > .venv/lock.new
	@grep -Ev '^(nvidia-|cuda-|triton)' .venv/lock.body >> .venv/lock.new
	@mv .venv/lock.new requirements-lock.txt; rm -f .venv/lock.body

clean-venv: ## remove .venv (the next command makes it again)
	rm -rf .venv
