#!/usr/bin/env bash
# Debian packages that a real node and the tests of alerts need: installed where this runs as root, else named. Never an
# error: without them these tests are listed as ignored, and the demo says that there is no node.
set -euo pipefail

[ "$(uname)" = Linux ] || exit 0

missing=()
need() { # PACKAGE PROGRAM
    [[ " ${missing[*]-} " == *" $1 "* ]] || [ -x "$2" ] || command -v "$2" >/dev/null || missing+=("$1")
}
need containerd containerd
need containerd ctr
need runc runc
need containernetworking-plugins /usr/lib/cni/bridge
need iproute2 ip
need iptables iptables
need util-linux unshare
need prometheus prometheus
[ ${#missing[@]} -gt 0 ] || exit 0

install="apt-get install --no-install-recommends ${missing[*]}"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "for a real node and a real Prometheus: $install"
    exit 0
fi
echo "installing what a real node and a real Prometheus need: $install"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null || true
$install -y -qq </dev/null || echo "that failed; going on without them"
