#!/usr/bin/env bash
# From a fresh Debian or macOS machine to an answer of a cluster: packages, build, a small model, a coordinator and two workers.
#
#   deploy/quickstart.sh [--model NAME] [PROMPT]
#
# NAME: smollm2 (100 MB, if none is given), gemma-3-270m (250 MB) or qwen2.5-coder-1.5b (1.1 GB).
# What an earlier run has set up is used as it is. Packages are installed with sudo where this is not root; the model goes to
# ${WOOLLY_CACHE:-~/.cache/woolly}/models.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

model=smollm2
while :; do
    case ${1-} in
    -h | --help)
        sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
        exit
        ;;
    --model)
        [ $# -ge 2 ] || die "--model needs a name: one of: $model_names"
        model=$2
        shift 2
        ;;
    *) break ;;
    esac
done
[ $# -le 1 ] || die "one prompt at most: quote it"
case " $model_names " in *" $model "*) ;; *) die "no model $model: choose one of: $model_names" ;; esac
prompt=${1:-Tell me the capital of France.}

start_log
install_packages
build_programs
fetch_model "$model"
# shellcheck disable=SC2086
exec "$woolly_root/build/bin/woolly" run -m "$model_path" --local 2 $model_flags -p "$prompt"
