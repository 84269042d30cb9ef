# What this machine says of itself. Changes nothing. One fact a line: its name,
# a space, its value; the contents of files as base64.
user=$1 dir=$2 bin=$3 programs=$4 updates=$5 authorities=$6
shift 6

say() { printf '%s %s\n' "$1" "$2"; }
sum() { sha256sum < "$1" | cut -c 1-64; }
content() {
    if [ -f "$2" ]; then say "$1" "$(head -c 131072 -- "$2" | base64 | tr -d '\n')"; fi
}
there() { if [ -e "$2" ]; then say "$1" yes; fi; }
# Whether the file is what the command behind it prints.
printed() {
    unit_file=$1
    shift
    [ -f "$unit_file" ] && [ -x "$1" ] && "$@" 2> /dev/null | cmp -s - "$unit_file"
}

say system "$(uname -s)"
say machine "$(uname -m)"
say clock "$(date +%s)"
there systemd /run/systemd/system
for tool in systemctl useradd setpriv install sha256sum base64 sync; do
    command -v "$tool" > /dev/null 2>&1 || say lacks "$tool"
done
if id -u -- "$user" > /dev/null 2>&1; then say user yes; fi

for program in $programs; do
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

if [ -f "$updates/trust.json" ] && [ -x "$bin/sotto-relay" ]; then
    say trust "$("$bin/sotto-relay" update --state "$updates" --json status 2> /dev/null |
        base64 | tr -d '\n')"
fi
if [ -f "$authorities" ]; then say authorities "$(sum "$authorities")"; fi

for role in relay gateway; do
    name=sotto-$role
    program=$bin/$name
    file=/etc/systemd/system/$name
    say active "$role $(systemctl is-active -- "$name.service" 2> /dev/null || true)"
    say enabled "$role $(systemctl is-enabled -- "$name.service" 2> /dev/null || true)"
    # The unit depends on nothing else than whether the port is a low one.
    for port in 443 8443; do
        if printed "$file.service" \
            "$program" unit --dir "$dir" --user "$user" --listen "0.0.0.0:$port"; then
            say unit "$role $port"
        fi
    done
    if printed "$file-update.service" \
        "$program" unit update --dir "$dir" --update-dir "$updates" "$@" &&
        printed "$file-update.timer" "$program" unit timer --dir "$dir"; then
        say updater "$role printed"
    fi
    if systemctl --quiet is-enabled -- "$name-update.timer" 2> /dev/null &&
        systemctl --quiet is-active -- "$name-update.timer"; then
        say updater "$role runs"
    fi
done

for table in tcp tcp6; do
    if [ -r "/proc/net/$table" ]; then
        say listening "$(grep -E '^ *sl|^ *[0-9]+: [0-9A-F]+:[0-9A-F]+ [0-9A-F]+:[0-9A-F]+ 0A ' \
            "/proc/net/$table" | head -c 131072 | base64 | tr -d '\n')"
    fi
done
say end yes
