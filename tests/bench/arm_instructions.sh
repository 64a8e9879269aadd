#!/usr/bin/env bash
# Instructions a multiply-add of the NEON kernels, counted by running them under qemu-user, where time means nothing.
#
#   tests/bench/arm_instructions.sh [COLUMNS …]      batches, 128 and 1 unless told
#
# Needs gcc-aarch64-linux-gnu and qemu-user-static. A product of 64 rows and 2048 elements runs once and three times; half of the difference is one product, from its
# weights and quantized activations to its results. qemu writes a line for each instruction.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

objects=()
for source in engine/kernels/*.c engine/{error,memory,machine,kv_cache,gguf_types}.c tests/kernels/*.c; do
    flags=
    case $source in
    */neon.c) flags=-march=armv8.2-a+dotprod ;;
    */neon_i8mm.c) flags=-march=armv8.2-a+dotprod+i8mm ;;
    esac
    objects+=("$folder/${source//\//_}.o")
    aarch64-linux-gnu-gcc -O2 -std=gnu11 -D_GNU_SOURCE -ffp-contract=off -I. $flags -c -o "${objects[-1]}" "$source"
done
aarch64-linux-gnu-gcc -static -o "$folder/kernels" "${objects[@]}" -lm -lpthread

instructions () {
    mkfifo "$folder/log"
    grep -c ^Trace "$folder/log" >"$folder/count" &
    qemu-aarch64-static -singlestep -d exec,nochain -D "$folder/log" "$folder/kernels" --multiply "$@" >"$folder/said"
    wait
    rm "$folder/log"
    cat "$folder/count"
}

printf '%-6s %-6s %8s  %s\n' isa type columns 'instructions a multiply-add (and multiply-adds an instruction)'
[ $# -gt 0 ] || set -- 128 1
for n in "$@"; do
    for isa in neon i8mm; do
        for type in Q4_K Q6_K Q8_0 Q4_1; do
            once=$(instructions 1 "$n" --isa $isa --type $type)
            thrice=$(instructions 3 "$n" --isa $isa --type $type)
            macs=$(cut -d' ' -f1 "$folder/said")
            awk -v i=$(((thrice - once) / 2)) -v m="$macs" -v isa=$isa -v type=$type -v n="$n" \
                'BEGIN { printf "%-6s %-6s %8d  %.3f (%.1f)\n", isa, type, n, i / m, m / i }'
        done
    done
done
