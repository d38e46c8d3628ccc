#!/bin/sh
# Installs Headwater for systemd, or takes it away again; `just install` builds and calls this.
#
#   install.sh install PREFIX BINARIES     BINARIES: folder of what cargo built (target/release)
#   install.sh uninstall PREFIX
#
# Below PREFIX (default of `just install`: /usr/local): bin, lib/headwater, share/doc/headwater.
# Units go to where systemd looks: PREFIX/lib/systemd/system for /usr and /usr/local, otherwise
# /etc/systemd/system; UNITDIR says otherwise. Configuration goes to /etc/headwater (SYSCONFDIR),
# and never over what is there; uninstalling leaves it, and the data in /var/lib/headwater.
# DESTDIR is put before every path, for packages: nothing outside of it is touched then.
# NATS_SERVER is the nats-server to install beside them; `just install` sets it.
set -eu

fail() { echo "install.sh: $*" >&2; exit 1; }

here=$(cd "$(dirname "$0")" && pwd)
action=${1:-} prefix=${2:-}
case $prefix in /*) ;; *) fail "PREFIX must be an absolute path, such as /usr/local" ;; esac
prefix=${prefix%/}
case $prefix in
/usr | /usr/local) units=${UNITDIR:-$prefix/lib/systemd/system} ;;
*) units=${UNITDIR:-/etc/systemd/system} ;;
esac
etc=${SYSCONFDIR:-/etc}/headwater
root=${DESTDIR:-}
bin=$root$prefix/bin lib=$root$prefix/lib/headwater doc=$root$prefix/share/doc/headwater
programs="headwater headwater-users headwater-products headwater-orders headwater-purchases"

# Whether systemd of this machine is to hear of it.
is_live() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

# A text file with the paths of this installation in it.
put() {
    mkdir -p "$(dirname "$2")"
    sed -e "s|/usr/local|$prefix|g" -e "s|$prefix/lib/headwater/nats-server|$broker|" \
        -e "s|/etc/headwater|$etc|g" "$1" >"$2.new"
    chmod 644 "$2.new"
    mv "$2.new" "$2"
}

# A program; its name is exchanged in one step, so that the one that runs is not disturbed.
put_program() {
    mkdir -p "$(dirname "$2")"
    install -m 755 "$1" "$2.new"
    mv "$2.new" "$2"
}

install_all() {
    binaries=${1:-}
    for program in $programs; do
        [ -x "$binaries/$program" ] || fail "there is no $program in $binaries: build it first (just install does)"
    done
    [ -x "${NATS_SERVER:-}" ] || fail "NATS_SERVER must name the nats-server to install (just install finds it)"
    for program in $programs; do put_program "$binaries/$program" "$bin/$program"; done
    # One of the system's is used as it is; one in somebody's home no service can see.
    case $NATS_SERVER in
    /usr/* | /opt/*) broker=$NATS_SERVER ;;
    *) broker=$prefix/lib/headwater/nats-server && put_program "$NATS_SERVER" "$lib/nats-server" ;;
    esac
    for unit in "$here"/units/*.service "$here"/units/*.socket "$here"/units/*.target; do
        put "$unit" "$root$units/$(basename "$unit")"
    done
    common=headwater-.service.d/10-common.conf
    put "$here/units/$common" "$root$units/$common"
    put "$here/README.md" "$doc/README.md"
    for file in "$here"/etc/*; do
        name=$(basename "$file")
        if [ -e "$root$etc/$name" ]; then
            echo "kept $root$etc/$name; the newest sample is $doc/$name"
        else
            put "$file" "$root$etc/$name"
        fi
        put "$file" "$doc/$name"
    done
    if is_live; then systemctl daemon-reload; fi
    echo "installed below $root$prefix; units in $root$units, configuration in $root$etc"
    echo "start now and at every boot: systemctl enable --now headwater.target"
}

uninstall_all() {
    if is_live; then systemctl disable --quiet --now headwater.target || true; fi
    for program in $programs; do rm -f "$bin/$program"; done
    rm -f "$lib/nats-server" "$doc/README.md"
    for unit in "$here"/units/*.service "$here"/units/*.socket "$here"/units/*.target; do
        rm -f "$root$units/$(basename "$unit")"
    done
    rm -f "$root$units/headwater-.service.d/10-common.conf"
    for file in "$here"/etc/*; do rm -f "$doc/$(basename "$file")"; done
    for folder in "$root$units/headwater-.service.d" "$lib" "$doc"; do
        # What others put there stays.
        rmdir "$folder" 2>/dev/null || true
    done
    if is_live; then systemctl daemon-reload; fi
    echo "uninstalled; left: $root$etc, and the data in /var/lib/headwater"
}

case $action in
install) install_all "${3:-}" ;;
uninstall) uninstall_all ;;
*) fail "say \`install PREFIX BINARIES\` or \`uninstall PREFIX\`" ;;
esac
