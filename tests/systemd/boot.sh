#!/bin/bash
# Boots this machine's own systemd as process 1 of new namespaces, over a temporary copy of /, to
# start and test real units anywhere (as root, in under a second).
# Needs only systemd, util-linux and iproute2.
#
# usage: boot.sh FILES NAME
#   FILES  a folder to copy over / inside (the DESTDIR of `install.sh`)
#   NAME   the name of its control groups on this machine
#
# Prints the id of its process 1 on this machine, then runs until its standard input ends. However
# the caller ends, no process, mount, control group or file is left.
# Look inside: nsenter -t NUMBER -m -u -i -n -p -C -r -w systemctl status
set -euo pipefail
files=$(realpath "$1") name=$2
work=$(mktemp -d)

# The hierarchies that systemd needs: version 2, or a named one next to version 1.
groups=()
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    groups+=(/sys/fs/cgroup/"$name")
else
    for hierarchy in systemd unified; do
        if [ -d /sys/fs/cgroup/$hierarchy ]; then groups+=(/sys/fs/cgroup/$hierarchy/"$name"); fi
    done
fi

clean_up() {
    trap '' EXIT INT TERM HUP
    # The namespace's process 1 takes all others with it.
    if [ -n "${booted:-}" ]; then
        kill -KILL "$booted" 2>/dev/null || true
        wait "$booted" 2>/dev/null || true
    fi
    for group in "${groups[@]}"; do
        for attempt in {1..100}; do
            [ -d "$group" ] || break
            # The innermost first; a group whose last process is just ending is busy for a moment.
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.05
        done
    done
    rmdir "$work" || true
}
trap clean_up EXIT INT TERM HUP

for group in "${groups[@]}"; do mkdir -p "$group/boot"; done

# A separate process moves into the groups; this one must stay outside to remove them.
bash -euc '
  work=$1 files=$2; shift 2
  for group; do echo $$ >"$group/boot/cgroup.procs"; done
  exec unshare --fork --kill-child=KILL --pid --mount --uts --ipc --net --cgroup --propagation private bash -euc '\''
    work=$1 files=$2
    ip link set lo up
    mount -t tmpfs tmpfs "$work"; mkdir "$work"/{upper,work,root}
    mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
    r=$work/root
    cp -r --preserve=mode "$files"/. $r/
    mount -t proc -o nosuid,nodev,noexec proc $r/proc
    mount --bind $r/proc/sys $r/proc/sys; mount -o remount,bind,ro $r/proc/sys   # they are the host'\''\'\'''\''s
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs $r/sys
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
      mount -t cgroup2 cgroup2 $r/sys/fs/cgroup
    else
      mount -t tmpfs -o mode=755 tmpfs $r/sys/fs/cgroup; mkdir $r/sys/fs/cgroup/{systemd,unified}
      mount -t cgroup -o none,name=systemd cgroup $r/sys/fs/cgroup/systemd
      mount -t cgroup2 cgroup2 $r/sys/fs/cgroup/unified
      mount -o remount,ro,nosuid,nodev,noexec $r/sys/fs/cgroup
    fi
    mount -t tmpfs -o mode=755,nosuid tmpfs $r/dev; mkdir $r/dev/{pts,shm}
    for n in null zero full random urandom tty; do touch $r/dev/$n; mount --bind /dev/$n $r/dev/$n; done
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts $r/dev/pts
    ln -s pts/ptmx $r/dev/ptmx; ln -s /proc/self/fd $r/dev/fd
    mount -t tmpfs -o mode=755 tmpfs $r/run
    mount -t tmpfs -o mode=1777 tmpfs $r/tmp
    # Start, mount and keep nothing of this machine.
    rm -rf $r/etc/systemd/system/*.wants $r/etc/systemd/system/*.requires $r/var/log/journal
    : >$r/etc/fstab; : >$r/etc/machine-id
    cd $r; mkdir -p .old; pivot_root . .old; umount -l /.old; rmdir /.old
    # Mounts of systemd for a service, such as its credentials, must propagate to it.
    mount --make-rshared /
    exec env -i container=unshare PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
      setpriv --bounding-set=-sys_rawio,-sys_module,-sys_time,-syslog,-mknod,-wake_alarm,-block_suspend,-mac_admin,-mac_override,-sys_pacct \
      /lib/systemd/systemd --system systemd.unit=multi-user.target systemd.log_target=journal systemd.show_status=no
  '\'' bash "$work" "$files"
' bash "$work" "$files" "${groups[@]}" </dev/null >&2 &
booted=$!

for attempt in {1..200}; do
    # The child of `unshare` is process 1 inside.
    leader=$(cat /proc/"$booted"/task/"$booted"/children 2>/dev/null || true)
    leader=${leader%% *}
    if [ -n "$leader" ] && [ "$(cat /proc/"$leader"/comm 2>/dev/null)" = systemd ]; then break; fi
    kill -0 "$booted" 2>/dev/null || { echo "boot.sh: the machine did not boot" >&2; exit 1; }
    leader=
    sleep 0.05
done
[ -n "$leader" ] || { echo "boot.sh: systemd did not start" >&2; exit 1; }
echo "$leader"
# Wait until the caller has ended.
cat >/dev/null
