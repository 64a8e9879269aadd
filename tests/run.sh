#!/usr/bin/env bash
# Installs what the tests need, builds, fetches a model, and runs every test and check through ctest.
#
#   tests/run.sh [CTEST-FLAGS]        such as -L unit, -R cluster.run, -LE check
#
# WOOLLY_FUZZ_SECONDS (60) is the time of each fuzz target. WOOLLY_TEST_MODELS="gemma-3-270m qwen2.5-coder-1.5b" fetches these too (1.4 GB), whose
# tests are skipped otherwise. Ends with ctest's own verdict; before it, what was skipped and why.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"

debian_packages="$debian_packages libcmocka-dev libsimde-dev python3-venv clang clang-tidy libclang-rt-dev iproute2 procps"
brew_packages="$brew_packages cmocka simde llvm"

build=$woolly_root/build

# The Python packages of requirements.txt, in a virtual environment beside the models; renewed when the list changes.
install_python_packages () {
    local list=$woolly_root/tests/requirements.txt
    cmp -s "$list" "$venv/installed.txt" && "$venv/bin/python" -c '' 2>/dev/null && return
    rm -rf "$venv"
    step "Creating $venv" python3 -m venv "$venv"
    step "Installing Python packages" "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$list"
    cp "$list" "$venv/installed.txt"
}

# A clang that links libFuzzer; Apple's does not. Empty if there is none.
find_clang () {
    local clang
    for clang in "$(command -v clang)" "$(brew --prefix llvm 2>/dev/null)/bin/clang"; do
        echo 'int LLVMFuzzerTestOneInput (const char *d, long n) { return d && n < 0; }' |
            "$clang" -fsanitize=fuzzer -x c - -o "$woolly_cache/probe" 2>>"$woolly_log" && { rm -f "$woolly_cache/probe"; echo "$clang"; return; }
    done
}

# What was skipped and why, by the log of a ctest that has ended.
list_skipped () {
    [ -n "$clang" ] || echo 'lint and fuzzing: no clang with libFuzzer'
    grep -i 'skipped' "$build/Testing/Temporary/LastTest.log" | grep -vE '[0-9]+ (passed|skipped)|\[ +SKIPPED +\] [0-9]+ test' | sed 's/^ *//' | sort -u
}

# ctest's output, with what was skipped put before its verdict. That waits for ctest's end, since its log has its name only then.
add_skipped () {
    local line verdict='' skipped
    while IFS= read -r line; do
        case $verdict$line in
        *'% tests passed, '*) verdict+=$line$'\n' ;;
        *) printf '%s\n' "$line" ;;
        esac
    done
    if [ -n "$verdict" ]; then
        skipped=$(list_skipped)
        printf '\nSkipped:\n%s\n\n%s' "$(sed 's/^/  /' <<<"${skipped:-nothing}")" "$verdict"
    fi
}

start_log
venv=$woolly_cache/tests-venv
install_packages
install_python_packages
fetch_model smollm2
for model in ${WOOLLY_TEST_MODELS-}; do
    fetch_model "$model"
done
clang=$(find_clang)
step "Configuring" cmake -S "$woolly_root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DWOOLLY_TESTS=ON -DWOOLLY_CHECKS=ON \
    -DWOOLLY_PYTHON="$venv/bin/python" -DWOOLLY_CLANG="$clang" -DWOOLLY_FUZZ_SECONDS="${WOOLLY_FUZZ_SECONDS:-60}"
step "Building" cmake --build "$build" -j "$(n_cores)"
ctest --test-dir "$build" -j "$(n_cores)" --output-on-failure --no-tests=error "$@" </dev/null | add_skipped
