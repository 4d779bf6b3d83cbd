#!/usr/bin/env bash
# All that needs a GPU, in one command, about 25 minutes: bash benchmarks/gpu.sh [folder for logs]
# First the tests, then every table that wants a GPU (kept in benchmarks/results), then the report.
# A step that fails or runs out of time leaves its log, and the others go on.
set -u
cd "$(dirname "$0")/.."
logs=${1:-runs/gpu}
mkdir -p "$logs"

step() { # name, seconds, command
  local name=$1 seconds=$2 code
  shift 2
  echo "== $name: $*"
  timeout "$seconds" "$@" >"$logs/$name.log" 2>&1
  code=$?
  tail -n 25 "$logs/$name.log"
  echo "== $name: exit code $code"
}

HRM_JAX_TEST_PLATFORM=cuda XLA_PYTHON_CLIENT_PREALLOCATE=false \
  step tests 540 python -m pytest -q -p no:cacheprovider -p no:benchmark -n auto tests/gpu
step attention 300 python benchmarks/attention.py --causal --save
step attention_tune 420 python benchmarks/attention.py --tune --engines pallas cudnn --rounds=3
step hrm_step 240 python benchmarks/hrm_step.py --preset=paper --profile="$logs/profile" \
  --save=hrm_step_gpu
for engine in pallas cudnn; do
  step "hrm_step_$engine" 240 python benchmarks/hrm_step.py --preset=paper \
    --attention=$engine --profile="$logs/profile_$engine" --save="hrm_step_gpu_$engine"
done
step hrm_step_chunk 240 python benchmarks/hrm_step.py --preset=paper --chunk=8
step hrm_step_arc 300 python benchmarks/hrm_step.py --preset=paper --size=30 --microbatch=96 \
  --puzzles=192 --slots=192 --rounds=3 --save=hrm_step_gpu_arc
step engine 240 python benchmarks/engine.py --alone --save=engine_gpu
step report 60 python -m benchmarks.report
