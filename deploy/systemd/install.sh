#!/bin/sh
# Installs Headwater for systemd, or uninstalls it; `just install` builds and calls this.
#
#   install.sh install PREFIX BINARIES     BINARIES: folder of the programs that cargo built (target/release)
#   install.sh uninstall PREFIX
#
# Below PREFIX (default of `just install`: /usr/local): bin, lib/headwater, share/doc/headwater.
# Units go to where systemd looks: PREFIX/lib/systemd/system for /usr and /usr/local, otherwise
# /etc/systemd/system; UNITDIR overrides that. Configuration goes to /etc/headwater (SYSCONFDIR),
# and never replaces existing files; uninstalling leaves it, and the data in /var/lib/headwater and
# /var/backups/headwater.
# DESTDIR is a prefix of every path, for packages: nothing outside it is touched.
# NATS_SERVER is the nats-server to install as well; `just install` sets it.
# BROKER=open: the broker admits every client that reaches its port. Otherwise each user has a password.
set -eu
# Programs and units are readable by all users, whatever the umask is.
umask 022

fail() { echo "install.sh: $*" >&2; exit 1; }

here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
action=${1:-} prefix=${2:-}
case $prefix in /*) ;; *) fail "PREFIX must be an absolute path, such as /usr/local" ;; esac
prefix=${prefix%/}
# The folder where systemd looks.
case $prefix in
/usr | /usr/local) systemd=$prefix/lib ;;
*) systemd=/etc ;;
esac
units=${UNITDIR:-$systemd/systemd/system} sysusers=$systemd/sysusers.d
etc=${SYSCONFDIR:-/etc}/headwater
root=${DESTDIR:-}
bin=$root$prefix/bin lib=$root$prefix/lib/headwater share=$root$prefix/share
doc=$share/doc/headwater samples=$share/doc/headwater/etc man=$share/man/man1
bash=$share/bash-completion/completions zsh=$share/zsh/site-functions fish=$share/fish/vendor_completions.d
programs="headwater shop-import headwater-users headwater-products headwater-orders headwater-purchases"

# Whether to reload systemd of this machine.
is_live() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

# Installs a text file, with the paths of this installation in it.
put() {
    mkdir -p "$(dirname "$2")"
    sed -e "s|/usr/local/lib/sysusers.d|$sysusers|g" -e "s|/usr/local|$prefix|g" \
        -e "s|$prefix/lib/headwater/nats-server|$broker|" -e "s|/etc/headwater|$etc|g" "$1" >"$2.new"
    chmod 644 "$2.new"
    mv "$2.new" "$2"
}

# Installs a program; replaces the old file in one step, so that a running process is not disturbed.
put_program() {
    mkdir -p "$(dirname "$2")"
    install -m 755 "$1" "$2.new"
    mv "$2.new" "$2"
}

# Sets the path of an `include`: nats-server resolves it relative to the folder of the including file.
include() {
    up=$(echo "${1%/*}" | sed 's|/[^/]*|../|g')
    sed -i "s|^include .*/\(\.\./\)*$2|include $up${3#/}|" "$root$1"
}

# Installs the documents and the files that they link to; removes links to files that are not installed.
put_documents() {
    rm -rf "$doc"
    (
        cd "$repository"
        for file in LICENSE *.md docs/*.md docs/*.svg docs/adr/*.md deploy/*/*.md deploy/compose.yaml \
            deploy/prometheus/*.yml deploy/grafana/*.json deploy/nats/*.conf deploy/nats/*.json; do
            put "$file" "$doc/$file"
        done
    )
    find "$doc" -name '*.md' | while read -r file; do
        folder=$(dirname "$file")
        links=$(grep -o '](\([^)]*\))' "$file" | sed 's/^](//; s/)$//; /:\/\//d; s/#.*//; /^$/d' | sort -u)
        for link in $links; do
            [ -e "$folder/$link" ] || sed -i "s~\[\([^]]*\)\]($link[^)]*)~\1~g" "$file"
        done
    done
}

# The tool's manual pages and shell completions.
put_manual() {
    mkdir -p "$bash" "$zsh" "$fish"
    "$bin/headwater" man "$man"
    "$bin/headwater" completions bash >"$bash/headwater"
    "$bin/headwater" completions zsh >"$zsh/_headwater"
    "$bin/headwater" completions fish >"$fish/headwater.fish"
}

install_all() {
    binaries=${1:-}
    for program in $programs; do
        [ -x "$binaries/$program" ] || fail "there is no $program in $binaries: build it first (just install does)"
    done
    [ -x "${NATS_SERVER:-}" ] || fail "NATS_SERVER must name the nats-server to install (just install finds it)"
    for program in $programs; do put_program "$binaries/$program" "$bin/$program"; done
    # The system's nats-server is used in place; services cannot see one in a home directory.
    case $NATS_SERVER in
    /usr/* | /opt/*) broker=$NATS_SERVER ;;
    *) broker=$prefix/lib/headwater/nats-server && put_program "$NATS_SERVER" "$lib/nats-server" ;;
    esac
    for unit in $(cd "$here/units" && find . -type f); do put "$here/units/$unit" "$root$units/$unit"; done
    put "$here/sysusers.conf" "$root$sysusers/headwater.conf"
    put "$here/setup" "$lib/setup"
    chmod 755 "$lib/setup"
    put "$repository/deploy/nats/secrets.sh" "$lib/secrets.sh"
    put "$repository/deploy/nats/accounts.conf" "$lib/accounts.conf"
    put "$repository/deploy/nats/plan.json" "$lib/plan.json"
    include "$prefix/lib/headwater/accounts.conf" passwords.conf /run/credentials/headwater-nats.service/nats.passwords
    put_manual
    put_documents
    for file in "$here"/etc/*; do
        name=$(basename "$file")
        if [ -e "$root$etc/$name" ]; then
            echo "kept $root$etc/$name; the newest sample is $samples/$name"
        else
            put "$file" "$root$etc/$name"
            if [ "$name" = nats.conf ]; then include "$etc/nats.conf" accounts.conf "$prefix/lib/headwater/accounts.conf"; fi
            if [ "$name ${BROKER:-}" = "nats.conf open" ]; then sed -i 's/^include/#include/' "$root$etc/$name"; fi
        fi
        put "$file" "$samples/$name"
    done
    if [ -z "$root" ]; then "$lib/setup"; fi
    if is_live; then systemctl daemon-reload; fi
    echo "installed below $root$prefix; units in $root$units, configuration in $root$etc"
    echo "start now and at every boot: systemctl enable --now headwater.target"
}

uninstall_all() {
    if is_live; then
        # The target and the timers.
        systemctl disable --quiet --now $(cd "$here/units" && ls headwater*.t*) || true
        # The target does not wait for the units that it stops.
        systemctl stop 'headwater-*.socket' 'headwater-*.timer' 'headwater-*.service'
    fi
    for program in $programs; do rm -f "$bin/$program"; done
    rm -f "$man"/headwater.1 "$man"/headwater-*.1 "$bash/headwater" "$zsh/_headwater" "$fish/headwater.fish"
    rm -f "$root$sysusers/headwater.conf"
    [ ! -L "$root$etc/plan.json" ] || rm "$root$etc/plan.json"
    for unit in $(cd "$here/units" && find . -type f); do rm -f "$root$units/$unit"; done
    rm -rf "$lib" "$doc"
    # Drop-ins from elsewhere stay.
    for folder in "$here"/units/*.d; do rmdir "$root$units/$(basename "$folder")" 2>/dev/null || true; done
    if is_live; then systemctl daemon-reload; fi
    echo "uninstalled; left, where there are any:"
    echo "  data              $root/var/lib/headwater"
    echo "  copies of it      $root/var/backups/headwater"
    echo "  configuration     $root$etc, $root/etc/systemd/system/headwater-*.d"
    echo "  passwords         $root$etc/secrets, $root/etc/credstore/headwater*, the context headwater of root"
    echo "  users             headwater-users, -products, -orders, -purchases, -nats"
}

case $action in
install) install_all "${3:-}" ;;
uninstall) uninstall_all ;;
*) fail "say \`install PREFIX BINARIES\` or \`uninstall PREFIX\`" ;;
esac
