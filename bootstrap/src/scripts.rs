//! What runs on the machines, each by `sh`, as root: short, for any POSIX
//! shell, with what varies as arguments and what is secret on standard input.
//! Each may be stopped anywhere and run again.

/// Arguments: user, server's directory, folder of the programs, their names,
/// where updates are remembered, the file of authorities for them; then how the
/// programs are told where releases are, if they are to be.
pub(crate) const FACTS: &str = include_str!("scripts/facts.sh");

/// Makes the user `$1`, who can log in nowhere, with a group of its own.
pub(crate) const MAKE_USER: &str = r#"
shell=/usr/sbin/nologin
[ -x "$shell" ] || shell=/bin/false
id -u -- "$1" > /dev/null 2>&1 ||
    useradd --system --user-group --no-create-home --home-dir / --shell "$shell" -- "$1"
"#;

/// Makes the folder `$2`, which belongs to the user `$1` alone.
pub(crate) const MAKE_FOLDER: &str = r#"
install -d -o "$1" -g "$1" -m 700 -- "$2"
"#;

/// Puts a program, which is read from standard input, at `$1`: whole or not at
/// all, and only if its SHA-256 sum is `$2` and it starts here.
pub(crate) const RECEIVE_PROGRAM: &str = r#"
umask 022
folder=$(dirname -- "$1")
new=$1.sotto-new
mkdir -p -- "$folder"
trap 'rm -f -- "$new"' EXIT
cat > "$new"
if [ "$(sha256sum < "$new" | cut -c 1-64)" != "$2" ]; then
    echo 'what arrived is not what was sent' >&2
    exit 1
fi
chmod 755 -- "$new"
if ! "$new" --version > /dev/null; then
    echo "it does not start there: take programs that were built for this system" >&2
    exit 1
fi
sync -- "$new"
mv -f -- "$new" "$1"
sync -- "$folder"
"#;

/// As the user `$1`, what follows.
pub(crate) const AS_USER: &str = r#"
user=$1
shift
cd /
exec setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs -- "$@"
"#;

/// As the user `$1`, with a token that is read from standard input, what follows.
pub(crate) const AS_USER_WITH_TOKEN: &str = r#"
user=$1
shift
cd /
IFS= read -r SOTTO_JOIN_TOKEN
export SOTTO_JOIN_TOKEN
exec setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs -- "$@"
"#;

/// As the user `$1`, writes the file `$2`, which nobody else reads, from standard
/// input: whole or not at all.
pub(crate) const RECEIVE_SECRET: &str = r#"
cd /
exec setpriv --reuid="$1" --regid="$1" --clear-groups --no-new-privs -- sh -euc '
    umask 077
    cat > "$1.new"
    sync -- "$1.new"
    mv -f -- "$1.new" "$1"
' sh "$2"
"#;

/// Pins the root of trust, which is read from standard input and has the
/// fingerprint `$3`, by the program `$1`, which remembers it in `$2`.
pub(crate) const PIN_ROOT: &str = r#"
umask 077
root=$(mktemp)
trap 'rm -f -- "$root"' EXIT
cat > "$root"
"$1" update --state "$2" trust "$root" --fingerprint "$3"
"#;

/// Writes the file `$1` from standard input: whole or not at all. Its folder is
/// for root alone.
pub(crate) const RECEIVE_FILE: &str = r#"
umask 077
mkdir -p -- "$(dirname -- "$1")"
trap 'rm -f -- "$1.sotto-new"' EXIT
cat > "$1.sotto-new"
sync -- "$1.sotto-new"
mv -f -- "$1.sotto-new" "$1"
"#;

/// What follows, as root.
pub(crate) const AS_ROOT: &str = r#"
exec "$@"
"#;

/// Prints the file `$1`, if there is one.
pub(crate) const READ: &str = r#"
if [ -f "$1" ]; then head -c 4097 -- "$1"; fi
"#;

/// Writes the unit file `$1` as the command behind it prints it.
pub(crate) const WRITE_UNIT: &str = r#"
umask 022
file=$1
shift
trap 'rm -f -- "$file.sotto-new"' EXIT
"$@" > "$file.sotto-new"
sync -- "$file.sotto-new"
mv -f -- "$file.sotto-new" "$file"
systemctl daemon-reload
"#;

/// Starts the unit `$1`, now and at every start of the machine; again if `$2`
/// says so.
pub(crate) const START_UNIT: &str = r#"
systemctl --quiet enable -- "$1"
systemctl "$2" -- "$1"
"#;

/// Stops the units that are named.
pub(crate) const STOP_UNITS: &str = r#"
systemctl stop -- "$@"
"#;

/// The process of the unit `$1`, how often it was started again, and what the
/// file `$2` says of who serves.
pub(crate) const SERVING: &str = r#"
systemctl show --property MainPID --value -- "$1"
systemctl show --property NRestarts --value -- "$1"
if [ -f "$2" ]; then head -c 4096 -- "$2"; fi
"#;

/// The last lines of the unit `$1`.
pub(crate) const JOURNAL: &str = r#"
journalctl --unit "$1" --lines 8 --output cat --no-pager 2> /dev/null | tail -c 2000
"#;
