#!/bin/sh
# Makes the passwords that the configurations here include, at random, in the folder that it is started in:
#
#   passwords.conf    hashes of all users' passwords, for the servers
#   passwords/USER    the password of each user, for who logs in
#   routes.conf       of the servers among themselves, with where they are
#
# usage: secrets.sh [HOST:PORT ...]    the servers of a cluster; without any, three on this machine
#
# It makes nothing anew: what is there stays, what is missing is added.
set -eu
umask 077

# As accounts.conf has them.
users="users products orders purchases purchases-composition purchases-inquiry viewer operator admin"

random() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# bcrypt at its lowest cost: nobody guesses 128 random bits, however fast they try. Where no perl
# knows it, the password itself, which nats-server takes as well.
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
