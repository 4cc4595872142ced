# A folder is a stage, a stage is a command, a command is a target. `make export quantize` is the main job, `make test`
# the proof. Every target sets up what it needs: the Python environment in .venv, npm packages under their lock files.

# MODEL is lite, small-fast, small-tuned, small, full, or a TOML file of widths; NAME is what it is called. PRUNE is the share
# of the multiplications that stays, as in `make export quantize PRUNE=0.5`; DATA the pictures and masks of `make finetune`;
# both train for STEPS, or for MINUTES. BROTLI is the quality of the .br files of a bundle, 0 to 11.
MODEL  ?= small-fast
PRUNE  ?=
STEPS  ?=
MINUTES ?=
DATA   ?=
ifneq ($(origin NAME),command line)  # some systems have a NAME of their own in the environment
NAME   := $(basename $(notdir $(MODEL)))$(if $(PRUNE),-$(PRUNE))$(if $(DATA),-$(notdir $(DATA:/=)))
endif
CALIB  ?=
EVAL   ?=
COUNT  ?= 64
POLICY ?= eval/policy.toml
REPORT ?= build/report
DIST   ?= dist
BROTLI ?=
PYTHON ?= python3.11
SHARED ?= ../shared

# Weights: those in the repository, else a copy beside it, else the public mirror.
PUBLIC_NAME := $(or $(patsubst small,u2netp,$(filter small,$(MODEL))),$(patsubst full,u2net,$(filter full,$(MODEL))),$(MODEL))
WEIGHTS ?= $(or $(wildcard u2net/weights/$(MODEL).safetensors),$(wildcard $(SHARED)/weights/$(PUBLIC_NAME).safetensors),.cache/weights/$(MODEL).onnx)

PY    := .venv/bin/python
BUILD := build/$(NAME)
VENV  := .venv/.toolchain
DEV   := .venv/.dev
NODE  := eval/browser/node_modules/.package-lock.json

# npm asks its registry for its own newest version unless it is told not to.
export NPM_CONFIG_UPDATE_NOTIFIER := false

# glibc gives the memory of a layer back to the system, and the next layer has to get it anew, page by page: a fifth of the
# time of an export. So it is kept.
export MALLOC_MMAP_THRESHOLD_ := 1073741824
export MALLOC_TRIM_THRESHOLD_ := 1073741824
export MALLOC_TOP_PAD_ := 67108864

.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: FORCE help setup prune finetune export quantize engine eval gate baseline publish wheel web demo sensitivity compare-int8 bench gallery preview fuzz chromium browsers \
        lint test docs lock clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(VENV) ## the Python environment, from the lock file

# An index of PyTorch's CPU wheels, where pip is not told of one already. The lock pins that build for Linux; where it is not
# to be had, PyPI's build of the same version is taken.
TORCH_INDEX ?=
PIP = $(PY) -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
LOCK := .venv/constraints.txt
PIP_INSTALL = $(PIP) --constraint $(LOCK) --editable

$(PY):
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed; name another, as PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

$(LOCK): constraints.txt | $(PY)
	@cpu=$$(sed -n 's/^\(torch==[^ ]*+cpu\).*/\1/p' $<); \
	if $(PIP) --dry-run --no-deps "$$cpu" >/dev/null 2>&1; then cp $< $@; \
	else echo "make: there is no $$cpu here, so PyPI's build is taken; TORCH_INDEX=URL names an index of CPU wheels" >&2; \
	  sed 's/^\(torch==[^ ]*\)+cpu/\1/' $< > $@; fi

$(VENV): pyproject.toml $(LOCK)
	$(PIP_INSTALL) '.[toolchain]'
	@touch $@

$(DEV): $(VENV)
	$(PIP_INSTALL) '.[toolchain,dev,matting,ray,sign,fuzz]'
	@touch $@

.cache/weights/%.onnx: | $(VENV)
	$(PY) -m u2net weights fetch $* --out $@

# ---- the pipeline -------------------------------------------------------------------------------------------------

# A stage looks for itself whether its output is what it is asked for: file times decide nothing, so these always run.

LENGTH = $(if $(STEPS),--steps $(STEPS)) $(if $(MINUTES),--minutes $(MINUTES))

ifdef PRUNE
$(BUILD)/weights.safetensors: $(WEIGHTS) FORCE | $(VENV)
	$(PY) -m train shrink --weights $(WEIGHTS) --share $(PRUNE) $(LENGTH) $(if $(CALIB),--data $(CALIB)) --out $@
export: $(BUILD)/weights.safetensors
EXPORTED := --name $(NAME) --weights $(BUILD)/weights.safetensors
# What the report measures against.
WHOLE := $(BUILD)/whole/fp32.onnx
$(WHOLE): $(WEIGHTS) FORCE | $(VENV)
	$(PY) -m export --model $(MODEL) --weights $(WEIGHTS) --out $@
else
EXPORTED := --model $(MODEL) --name $(NAME) --weights $(WEIGHTS)
endif

export: $(WEIGHTS) | $(VENV) ## checkpoint → build/NAME/fp32.onnx, fp16.onnx, proven against PyTorch
	$(PY) -m export $(EXPORTED) --fp16 --out $(BUILD)/fp32.onnx

quantize: export ## float ONNX → build/NAME/int8.onnx with the same masks, int8.u2e for the engine
	$(PY) -m quantize $(BUILD)/fp32.onnx $(if $(CALIB),--calib $(CALIB)) --count $(COUNT) --out $(BUILD)/int8.onnx
	$(PY) -m engine $(BUILD)/int8.onnx $(if $(CALIB),--calib $(CALIB)) --out $(BUILD)/int8.u2e

# Judged on the pictures that training never saw, beside the network that it began with.
finetune: $(WEIGHTS) | $(VENV) ## MODEL taught the pictures and masks in DATA → build/NAME, and build/NAME/report beside MODEL as it was
	@test -d "$(DATA)/masks" || { echo "make: say DATA=FOLDER, one with images/ and masks/ of the same names" >&2; exit 1; }
	$(PY) -m train finetune --data $(DATA) --start $(WEIGHTS) $(LENGTH) --out $(BUILD)/training
	$(MAKE) export quantize MODEL=$(MODEL) NAME=$(NAME) WEIGHTS=$(BUILD)/training/weights.safetensors CALIB=$(or $(CALIB),$(DATA)/images)
	$(PY) -m export --model $(MODEL) --weights $(WEIGHTS) --out $(BUILD)/general/fp32.onnx
	$(PY) -m eval $(BUILD)/general/fp32.onnx $(BUILD)/fp32.onnx $(BUILD)/int8.onnx --data $(BUILD)/training/held-out --no-latency --out $(BUILD)/report

engine: build/engine/.built quantize ## the engine, and MODEL as the file that it runs

build/engine/.built: $(wildcard engine/src/*.c engine/src/*.h) engine/build.py | $(VENV)
	$(PY) -m engine build --out build/engine/engine.wasm
	$(PY) -m engine build --threads --out build/engine/engine-threads.wasm
	@touch $@

eval: quantize $(WHOLE) build/engine/.built $(NODE) chromium ## mask quality and browser latency → build/report/report.html
	$(PY) -m eval $(strip $(WHOLE) $(BUILD)/fp32.onnx) $(BUILD)/int8.onnx $(BUILD)/int8.u2e $(if $(EVAL),--data $(EVAL)) --policy $(POLICY) --out $(REPORT)

gate: | $(VENV) ## fail where the report breaks eval/policy.toml
	$(PY) -m eval gate $(REPORT)/report.json --policy $(POLICY) --markdown $(REPORT)/report.md

baseline: | $(VENV) ## make the report what later ones are compared with: eval/baseline.json, to be committed
	$(PY) -m eval baseline $(REPORT)/report.json --out eval/baseline.json

# A make of its own for each: the gate reads what eval wrote, and web asks which model there is once it has been made.
publish: eval | $(VENV) ## export, quantize, eval, gate, then the bundle → dist/
	$(MAKE) gate
	$(MAKE) web
	$(PY) -m publish --model $(NAME) --build $(dir $(BUILD)) --report $(REPORT) --policy $(POLICY) --out $(DIST) $(if $(BROTLI),--brotli-quality $(BROTLI))

wheel: quantize | $(VENV) ## the Python wheel, runner and toolchain with MODEL inside → dist/
	$(MAKE) web
	$(PY) -m publish wheel --model $(BUILD)/int8.onnx --out $(DIST)

web: web/dist/.built ## the browser package and the demo

demo: quantize web ## the demo page with MODEL on http://localhost:8000
	$(PY) web/scripts/make_bundle.py --u2e $(BUILD)/int8.u2e --reference $(BUILD)/fp32.onnx --out web/demo-dist/model
	$(PY) -m http.server --bind 127.0.0.1 --directory web/demo-dist 8000

web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci --no-fund --no-audit
	@touch $@

# The model that the package brings, where it was built: a package without one works with any bundle.
OWN_MODEL := $(wildcard build/small-fast/int8.u2e)

web/model/manifest.json: $(OWN_MODEL) web/scripts/make_bundle.py | $(VENV)
	$(PY) web/scripts/make_bundle.py --u2e $< --reference build/small-fast/fp32.onnx --out web/model

web/dist/.built: web/node_modules/.package-lock.json build/engine/.built $(if $(OWN_MODEL),web/model/manifest.json) $(wildcard web/src/*.ts web/demo/*.ts web/demo/static/* web/scripts/*.mjs web/tsconfig*.json web/package.json)
	cd web && npm run build
	@touch $@

$(NODE): eval/browser/package-lock.json
	cd eval/browser && npm ci --no-fund --no-audit
	@touch $@

tests/publish/transformers_js/node_modules/.package-lock.json: tests/publish/transformers_js/package-lock.json
	cd tests/publish/transformers_js && npm ci --ignore-scripts --no-fund --no-audit
	@touch $@

# ---- measurements that take longer than a test may ----------------------------------------------------------------

# The command line of each make below names its own PRUNE; weights and pictures are this one's.
SHARES ?= 0.75 0.5 0.35
prune: quantize ## what shares of the multiplications cost in masks, gain in time and bytes → build/NAME/prune.svg
	for share in $(SHARES); do $(MAKE) export quantize MODEL=$(MODEL) WEIGHTS=$(WEIGHTS) NAME=$(NAME)-$$share PRUNE=$$share || exit 1; done
	$(PY) -m eval shares $(BUILD)/int8.u2e $(SHARES:%=$(BUILD)-%/int8.u2e) $(if $(EVAL)$(CALIB),--data $(or $(EVAL:%=%/images),$(CALIB))) --out $(BUILD)/prune

sensitivity: export ## what each layer costs in masks when it becomes int8
	$(PY) -m quantize sensitivity $(BUILD)/fp32.onnx $(if $(CALIB),--calib $(CALIB)) --out $(BUILD)/sensitivity

compare-int8: | $(VENV) ## this project beside onnxruntime's quantize_static and NNCF, on the same pictures
	$(MAKE) export MODEL=small
	$(PIP_INSTALL) '.[toolchain,compare]'
	$(PY) -m quantize compare build/small/fp32.onnx $(if $(CALIB),--calib $(CALIB)) $(if $(EVAL),--data $(EVAL)/images) \
	  --count 16 --check 60 --out build/small/compare

bench: quantize web $(NODE) chromium | $(DEV) ## speed of the metrics, the runner and the models
	$(PY) -m eval bench $(if $(EVAL),--data $(EVAL))
	$(PY) -m eval latency $(BUILD)/int8.onnx $(BUILD)/int8.u2e $(BUILD)/fp32.onnx $(if $(EVAL),--data $(EVAL)) --out $(BUILD)/latency.json
	$(PY) -m eval engines $(BUILD)/latency.json
	$(PY) -m engine profile $(BUILD)/int8.u2e
	$(PY) -m tests.web.first_mask $(BUILD)
	$(PY) -m tests.web.test_overhead
	$(PY) -m eval throughput --model $(BUILD)/int8.onnx
	$(PY) -m eval edges --model $(BUILD)/int8.onnx

gallery: quantize ## a contact sheet of cut-outs to look at
	$(PY) -m eval gallery --model $(BUILD)/int8.onnx $(if $(EVAL),--data $(EVAL)) --out build/gallery

preview: | $(VENV) ## a page of procedural scenes → build/procedural.png
	$(PY) -m datasets preview --out build/procedural.png

fuzz: | $(DEV) ## ten thousand hostile files
	$(PY) -m tests.attacks.fuzz --cases 10000
	$(PY) -m tests.engine.fuzz --cases 10000

# ---- proof --------------------------------------------------------------------------------------------------------

chromium: | $(VENV)
	@test -n "$$CHROME_PATH" || command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  ls ~/.cache/ms-playwright/chromium* >/dev/null 2>&1 || $(PY) -m playwright install --with-deps chromium || \
	  { apt-get update -qq && apt-get install -y -qq chromium; }

# What takes long or needs much: the three browser engines, and the package in applications of webpack and Next.
browsers: web chromium | $(DEV) ## the browser package in Chromium, Firefox and WebKitGTK (Debian), and in webpack and Next
	command -v firefox-esr >/dev/null && test -x /usr/lib/*/webkit2gtk-4.1/MiniBrowser && command -v xvfb-run >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends firefox-esr webkit2gtk-driver xvfb xauth dbus; }
	OMP_NUM_THREADS=1 U2NET_BROWSERS=1 $(PY) -m pytest tests/web/test_browsers.py tests/web/test_apps.py

lint: | $(DEV) ## ruff, mypy, who may import whom
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports

# One thread for each test process: two that wait for each other cost several times as much.
test: lint $(NODE) tests/publish/transformers_js/node_modules/.package-lock.json web chromium | $(DEV) ## everything that must hold
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadgroup --durations 15

docs: | $(VENV) ## docs/commands.md and docs/forms.md out of the program, tables out of docs/figures/
	$(PY) docs/commands.py
	$(PY) docs/figures.py
	$(PY) docs/forms.py

lock: | $(DEV) ## write constraints.txt anew from what is installed
	$(PY) -m pip freeze --exclude-editable | sed -E 's/^torch==([0-9.]+).*/torch==\1+cpu ; sys_platform == "linux"\ntorch==\1 ; sys_platform != "linux"/' > constraints.txt

clean: ## remove what was built, keep the environment
	rm -rf build dist web/dist web/demo-dist web/.test
