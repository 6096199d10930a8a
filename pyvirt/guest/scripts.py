"""Scripts that a guest's own shell runs for a carrier, and what their output says.

They ask for no more than busybox has.
"""

from __future__ import annotations

# Where the new file goes: behind symbolic links, which stay. Busybox's `readlink -f` is wrong
# where the last one dangles, so they are followed here. Devices are written to, not replaced.
# 21: EISDIR, 2: ENOENT, 40: ELOOP.
BEFORE_PUT = (
    '[ -d "$1" ] && exit 21; p=$1; n=0; case $p in /*) ;; *) p=./$p ;; esac; '
    'while [ -L "$p" ]; do n=$((n+1)); [ $n -le 40 ] || exit 40; '
    'l=$(readlink -n -- "$p"; echo x); l=${l%x}; '
    "case $l in /*) p=$l ;; *) p=${p%/*}/$l ;; esac; done; "
    '[ -d "${p%/*}/" ] || exit 2; '
    'if [ -e "$p" ] && ! [ -f "$p" ]; then echo d; else echo f; fi; printf %s "$p"'
)
REFUSALS = {
    2: "No such file or directory",
    21: "Is a directory",
    40: "Too many levels of symbolic links",
}
AFTER_PUT = (
    'if [ -e "$2" ]; then chown -- "$(stat -c %u:%g -- "$2")" "$1" || exit; fi; '
    'chmod -- "$3" "$1" && mv -fT -- "$1" "$2"'
)
UNPACK = 'mkdir -p -- "$2" && tar -xf "$1" -C "$2"'
# An archive inside of what it holds is left out by every tar.
PACK = 'cd -- "$2" && tar -cf "$1" .'


def listens(table: str, port: int, protocol: str) -> bool:
    """Whether a line of /proc/net/tcp or udp (proc(5)) is a listener on `port`."""
    state = "0A" if protocol == "tcp" else "07"  # TCP_LISTEN, TCP_CLOSE: unconnected
    rows = (line.split() for line in table.splitlines())
    return any(
        len(row) > 3 and row[1].endswith(f":{port:04X}") and row[3] == state for row in rows
    )
