# What this machine says of itself. Changes nothing. One fact a line: its name,
# a space, its value; the contents of files as base64.
user=$1 dir=$2 bin=$3
shift 3

say() { printf '%s %s\n' "$1" "$2"; }
sum() { sha256sum < "$1" | cut -c 1-64; }
content() {
    if [ -f "$2" ]; then say "$1" "$(head -c 131072 -- "$2" | base64 | tr -d '\n')"; fi
}
there() { if [ -e "$2" ]; then say "$1" yes; fi; }

say system "$(uname -s)"
say machine "$(uname -m)"
say clock "$(date +%s)"
there systemd /run/systemd/system
for tool in systemctl useradd setpriv install sha256sum base64 sync; do
    command -v "$tool" > /dev/null 2>&1 || say lacks "$tool"
done
if id -u -- "$user" > /dev/null 2>&1; then say user yes; fi

for program in "$@"; do
    if [ -f "$bin/$program" ]; then say program "$program $(sum "$bin/$program")"; fi
done

there folder "$dir"
if [ -d "$dir" ]; then
    say owner "$(stat -c %U -- "$dir")"
    if [ -n "$(ls -A -- "$dir")" ]; then say filled yes; fi
fi
content config "$dir/server.toml"
content node "$dir/cluster/node.json"
content members "$dir/cluster/members.json"
there keys "$dir/accounts"
there passphrase "$dir/unlock"

for role in relay gateway; do
    unit=sotto-$role.service
    file=/etc/systemd/system/$unit
    say active "$role $(systemctl is-active -- "$unit" 2> /dev/null || true)"
    say enabled "$role $(systemctl is-enabled -- "$unit" 2> /dev/null || true)"
    if [ -f "$file" ] && [ -x "$bin/sotto-$role" ]; then
        # The unit depends on nothing else than whether the port is a low one.
        for port in 443 8443; do
            if "$bin/sotto-$role" unit --dir "$dir" --user "$user" --listen "0.0.0.0:$port" \
                2> /dev/null | cmp -s - "$file"; then
                say unit "$role $port"
            fi
        done
    fi
done

for table in tcp tcp6; do
    if [ -r "/proc/net/$table" ]; then
        say listening "$(grep -E '^ *sl|^ *[0-9]+: [0-9A-F]+:[0-9A-F]+ [0-9A-F]+:[0-9A-F]+ 0A ' \
            "/proc/net/$table" | head -c 131072 | base64 | tr -d '\n')"
    fi
done
say end yes
