#!/bin/sh
# Makes random passwords, which the configurations here include, in the current folder:
#
#   passwords.conf    hashes of all users' passwords, for the servers
#   passwords/USER    the password of each user, for the clients
#   routes.conf       the password and addresses of the servers, for each other
#
# usage: secrets.sh [HOST:PORT ...]    the servers of a cluster; by default three on this machine
#
# It adds missing passwords, and changes none.
set -eu
umask 077

# The users of accounts.conf.
users="users products orders purchases purchases-composition purchases-inquiry viewer operator admin"

random() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# bcrypt at its lowest cost: 128 random bits cannot be guessed, however fast the attempts. Without a perl that has bcrypt,
# the password itself, which nats-server accepts as well.
hash() {
    perl -e 'chomp($_ = <STDIN>); $_ = crypt($_, "\$2b\$04\$$ARGV[0]"); /^\$2b/ or exit 1; print' \
        "$(random | cut -c 1-22)" < "$1" 2>/dev/null && return
    echo "secrets.sh: not hashed, no perl here knows bcrypt: the password of ${1#*/}" >&2
    cat "$1"
}

mkdir -p passwords
touch passwords.conf
for user in $users; do
    name=$(echo "$user" | tr - _)_password
    if grep -q "^$name:" passwords.conf; then continue; fi
    random > "passwords/$user"
    hash=$(hash "passwords/$user")
    echo "$name: \"$hash\"" >> passwords.conf
done

if [ -e routes.conf ]; then exit; fi
[ $# -gt 0 ] || set -- 127.0.0.1:6222 127.0.0.1:6223 127.0.0.1:6224
password=$(random)
{
    echo "authorization { user: cluster, password: \"$password\" }"
    echo "routes: ["
    for server in "$@"; do echo "  \"nats://cluster:$password@$server\""; done
    echo "]"
} > routes.conf
