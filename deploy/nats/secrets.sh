#!/bin/sh
# Makes the passwords that the configurations here include, at random, in the folder that it is started in:
#
#   passwords.conf    of all users, for the servers
#   passwords/USER    of each user, for who logs in
#   routes.conf       of the servers among themselves, with where they are
#
# usage: secrets.sh [HOST:PORT ...]    the servers of a cluster; without any, three on this machine
#
# It makes nothing anew: take away what is to be made again.
set -eu
umask 077

# As accounts.conf has them.
users="users products orders purchases purchases-composition purchases-inquiry viewer operator admin"

random() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

for file in passwords.conf passwords routes.conf; do
    if [ -e "$file" ]; then
        echo "secrets.sh: $file is there already" >&2
        exit 1
    fi
done

mkdir passwords
for user in $users; do
    password=$(random)
    echo "$password" > "passwords/$user"
    echo "$(echo "$user" | tr - _)_password: \"$password\"" >> passwords.conf
done

[ $# -gt 0 ] || set -- 127.0.0.1:6222 127.0.0.1:6223 127.0.0.1:6224
password=$(random)
{
    echo "authorization { user: cluster, password: \"$password\" }"
    echo "routes: ["
    for server in "$@"; do echo "  \"nats://cluster:$password@$server\""; done
    echo "]"
} > routes.conf
