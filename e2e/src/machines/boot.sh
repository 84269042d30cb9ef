# A machine: becomes systemd in namespaces of its own, with nothing of this
# machine but the kernel. Everything goes with its first process.
# Arguments: its name, its address, the folder of the base, a folder of its own
# beside the hierarchies of control groups.
set -eu
name=$1 address=$2 base=$3 here=$4
groups=$(dirname "$here")/groups
own=$(basename "$(dirname "$here")")-$name

mount -t tmpfs -o mode=755 machine "$here"
mkdir "$here/changed" "$here/work" "$here/root"
mount -t overlay -o "lowerdir=$base,upperdir=$here/changed,workdir=$here/work" machine "$here/root"

touch "$here/net"
unshare --net="$here/net" true
ip link add "to-$name" type veth peer name eth0 netns "$here/net"
ip link set "to-$name" master machines up
inside() { nsenter --net="$here/net" ip "$@"; }
inside link set lo up
inside address add "$address/24" dev eth0
inside link set eth0 up

for hierarchy in "$groups"/*; do
    mkdir "$hierarchy/$own"
    echo $$ > "$hierarchy/$own/cgroup.procs"
done
exec nsenter --net="$here/net" \
    unshare --cgroup --mount --uts --ipc --pid --fork --kill-child sh -euc '
    name=$1 root=$2
    hostname "$name"
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    if [ -e "$3/memory" ]; then
        mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
        mkdir "$root/sys/fs/cgroup/unified" "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/memory"
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
        mount -t cgroup -o none,name=systemd systemd "$root/sys/fs/cgroup/systemd"
        mount -t cgroup -o memory memory "$root/sys/fs/cgroup/memory"
    else
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    fi
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for device in null zero full random urandom tty; do
        touch "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mkdir "$root/run/outside"
    cd "$root"
    pivot_root . run/outside
    exec chroot . sh -c "umount -l /run/outside; \
        exec env -i container=other /lib/systemd/systemd --log-target=null --show-status=no"
    ' sh "$name" "$here/root" "$groups"
