#!/usr/bin/env bash
# need.sh CHECK PACKAGE...: unless the shell command CHECK succeeds, install Debian packages and check again.
# Installs only with the right to do so (root, or sudo without a password); otherwise says what to install and fails.
#   tools/need.sh 'test -x /usr/lib/postgresql/15/bin/postgres' postgresql
set -euo pipefail

check=$1
shift
if bash -c "$check" >/dev/null 2>&1; then exit 0; fi

fail() { echo "need: $*; please install: $packages" >&2; exit 1; }

packages=$*
command -v apt-get >/dev/null || fail "something is missing and there is no apt-get here"
if [ "$(id -u)" = 0 ]; then
    as_root=(env DEBIAN_FRONTEND=noninteractive)
elif sudo -n true 2>/dev/null; then
    as_root=(sudo -n env DEBIAN_FRONTEND=noninteractive)
else
    fail "something is missing and there is no right to install it"
fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "$@"
bash -c "$check" >/dev/null 2>&1 || fail "installed $packages, yet '$check' still fails"
