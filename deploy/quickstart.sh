#!/usr/bin/env bash
# From a fresh Debian or macOS machine to an answer of a cluster: packages, build, a small model, a coordinator and two workers.
#
#   deploy/quickstart.sh [PROMPT]
#
# What an earlier run has set up is used as it is. Packages are installed with sudo where this is not root; the model goes to
# ${WOOLLY_CACHE:-~/.cache/woolly}/models.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1-} in
-h | --help)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
[ $# -le 1 ] || die "one prompt at most: quote it"
prompt=${1:-Tell me the capital of France.}

start_log
install_packages
build_programs
fetch_smollm2
exec "$woolly_root/build/bin/woolly" run -m "$smollm2_path" --local 2 -p "$prompt"
