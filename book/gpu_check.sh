#!/usr/bin/env bash
# What a borrowed GPU is for, in ten minutes: make gpu-check OUT=dir, or bash book/gpu_check.sh PYTHON OUT [DATA].
# The tests marked gpu, the benchmark, then tables at PRESET=gpu with more and more seeds. What they print is also in OUT/log.txt,
# results are in OUT/runs. Called again it goes on: what passed with this code on this device is not repeated, and trainings resume
# from their store. SAR_REHEARSE=1 tries every part on the CPU, at sizes that mean nothing; LIMIT is the time for all of it in seconds.
set -uo pipefail
python=$(command -v "$1") out=${2:-} data=${3:-}
case $python in /*) ;; *) python=$PWD/$python ;; esac
here=$(cd "$(dirname "$0")" && pwd)
end=$((SECONDS + ${LIMIT:-540}))
trap 'kill "${child:-}" 2>/dev/null; wait "${child:-}"; exit 130' INT TERM  # a training saves before it ends

refuse() {
  echo "sarlib: $1" >&2
  exit 2
}

say() {
  echo "$*" | tee -a "$out/log.txt"
}

part() {  # NAME COMMAND: run it, unless it has passed before
  local left=$((end - SECONDS))
  grep -qsxF "$mark, $1" "$out/passed.txt" && return
  if ((left <= 0)); then
    say "$1: left for the next call, the time is up"
    return
  fi
  say "== $1"
  timeout --kill-after=30 "$left" "${@:2}" > >(tee -ia "$out/log.txt") 2>&1 &
  child=$!
  wait "$child"
  case $? in
    0) echo "$mark, $1" >>"$out/passed.txt" ;;
    124 | 137) say "$1: stopped, the time is up; the next call goes on" ;;
    *) failed="${failed:-} $1" ;;
  esac
}

[ -n "$out" ] || refuse 'OUT= names the folder for the results: make gpu-check OUT=results'
for name in SAR_ENTROPY SAR_COMPILE SAR_INPUT SAR_MICRO_BATCHES; do
  [ -z "${!name:-}" ] || refuse "$name would make other figures than a user gets: unset it"
done
device=cuda quick='' preset=gpu tables='table2 table4' seeds='1 3 5'
[ -z "${SAR_REHEARSE:-}" ] || device=cpu quick=--quick preset=tiny tables=table4 seeds=1
given=(--preset "$preset" --device "$device" ${data:+--data "$data"})
"$python" -m sarlib table4 "${given[@]}" --check || exit
mkdir -p "$out" && out=$(cd "$out" && pwd) && : >>"$out/log.txt" || refuse "cannot write to OUT=$out: name another folder"
export SAR_RUNS=$out/runs

name_device="import torch; from sarlib.runner.provenance import device_name; print(device_name(torch.device('$device')))"
code=$(cd "$here/.." && find sarlib book/bench tests -name '*.py' -print0 | sort -z | xargs -0 cat | sha256sum)
mark="$("$python" -c "$name_device"), code ${code:0:16}"
say "== $(date '+%Y-%m-%d %H:%M'), $mark"
part tests "$python" -m pytest -q -p no:cacheprovider "$here/../tests/gpu"
part benchmark env -C "$here" "$python" -m bench --device "$device" $quick
for n in $seeds; do
  for table in $tables; do
    part "$table, seeds: $n" "$python" -m sarlib "$table" "${given[@]}" --seeds "$n"
  done
done
[ -z "${failed:-}" ] || say "failed:$failed"
say "log and results: $out"
[ -z "${failed:-}" ]
