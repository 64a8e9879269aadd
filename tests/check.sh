#!/usr/bin/env bash
# One check of the whole tree, as ctest calls it: check.sh BUILD-FOLDER KIND …
#
#   format               the layout of every C file is clang-format's
#   build asan|tsan|clang  builds in BUILD-FOLDER/asan, …: AddressSanitizer + UBSan, ThreadSanitizer, clang with the fuzz targets
#   test asan|tsan       runs the tests of that build
#   tidy                 clang-tidy finds nothing (needs the clang build)
#   fuzz NAME SECONDS    a fuzz target finds nothing in this time (needs the clang build)
set -euo pipefail
build=$1
kind=$2
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cores=$(getconf _NPROCESSORS_ONLN)

c_files () {
    find engine proto worker coordinator tests -name "$1" | sort
}

case $kind in
format)
    # shellcheck disable=SC2046
    "$(dirname "$WOOLLY_PYTHON")/clang-format" --dry-run -Werror $(c_files '*.[ch]')
    ;;
build)
    flags=(-DWOOLLY_PYTHON="${WOOLLY_PYTHON-}")
    case $1 in
    asan) flags+=(-DCMAKE_BUILD_TYPE=Asan) ;;
    tsan) flags+=(-DCMAKE_BUILD_TYPE=Tsan) ;;
    clang) flags+=(-DCMAKE_BUILD_TYPE=Asan -DCMAKE_C_COMPILER="$WOOLLY_CLANG" -DWOOLLY_FUZZ=ON) ;;
    esac
    cmake -S . -B "$build/$1" "${flags[@]}"
    cmake --build "$build/$1" -j "$cores"
    ;;
test)
    case $1 in
    asan) ctest --test-dir "$build/asan" --output-on-failure --no-tests=error -j "$cores" ;;
    tsan)
        # Threads of our own code: the pool, and what computes on it. The libraries are not instrumented, so what crosses them is left to asan.
        TSAN_OPTIONS="halt_on_error=1 suppressions=$PWD/tests/tsan.supp" \
            ctest --test-dir "$build/tsan" --output-on-failure --no-tests=error -R 'thread_pool|link|wire'
        ;;
    esac
    ;;
tidy)
    tidy=$(dirname "$WOOLLY_CLANG")/clang-tidy
    [ -x "$tidy" ] || tidy=clang-tidy
    c_files '*.c' | xargs -P "$cores" -n 4 "$tidy" --quiet -p "$build/clang" 2>&1 |
        { grep -v -E '^[0-9]+ warnings? generated|^Suppressed|^Use -header-filter|^$' || true; } | tee "$build/tidy.log"
    [ ! -s "$build/tidy.log" ]
    ;;
fuzz)
    name=$1 seconds=$2
    seeds=tests/fuzz/corpus/$name found=$build/fuzz/$name
    mkdir -p "$found/corpus" "$found/failures"
    [ -d "$seeds" ] || seeds=
    # shellcheck disable=SC2086
    "$build/clang/bin/fuzz_$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$found/failures/" "$found/corpus" $seeds 2>&1 | tail -n 60
    ;;
esac
