# usage: keeper.sh BASE POSTGRES ARGUMENT...
# Runs the tests' Postgres until no process has held BASE/holders (shared flock) for some seconds, then removes BASE.
base=$1
shift
idle_limit=6
server_gone=

trap '' HUP INT
exec 9>"$base/keeper" && flock -n 9 || exit 1
exec 8<"$base/holders" || exit 1

# Where it can be had, the server stops also when this script is killed.
if setpriv --pdeathsig INT true 2>/dev/null; then
    setpriv --pdeathsig INT "$@" 8<&- 9>&- &
else
    "$@" 8<&- 9>&- &
fi
server=$!

idle=0
while sleep 1; do
    if flock -n -x 8; then
        idle=$((idle + 1))
        # The lock stays held from here: who comes now waits, finds the folder gone and makes a new one.
        [ "$idle" -lt "$idle_limit" ] || break
        flock -u 8
    else
        idle=0
    fi
    # A server that died is the next test process's to replace: let go of the keeper's lock.
    if [ -z "$server_gone" ] && ! kill -0 "$server" 2>/dev/null; then
        server_gone=yes
        exec 9>&-
    fi
done

if [ -n "$server_gone" ]; then
    flock -n "$base/keeper" true || exit 0
else
    kill -INT "$server" 2>/dev/null
    wait "$server"
fi
cd /
rm -rf "$base"
