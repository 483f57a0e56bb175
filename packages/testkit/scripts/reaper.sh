#!/bin/sh
# Outlives the process that started it by a moment, and takes along what that process left behind.
# Standard input: "+ PID COMM" a service started, "- PID" it ended, "d PATH" a folder made, "r PATH" it is gone.
# End of input means that the owner is dead, by whatever cause (SIGKILL included).
pids='' folders=''
without() { for entry in $1; do [ "${entry%%:*}" = "$2" ] || printf '%s ' "$entry"; done; }
while read -r verb first second; do
  case $verb in
    +) pids="$pids $first:$second" ;;
    -) pids=$(without "$pids" "$first") ;;
    d) folders="$folders $first" ;;
    r) folders=$(without "$folders" "$first") ;;
  esac
done
alive() { [ "$(cat "/proc/${1%%:*}/comm" 2>/dev/null)" = "${1##*:}" ]; }
for entry in $pids; do
  # SIGQUIT lets a postmaster take its children and shared memory along; the others just die of it.
  alive "$entry" && kill -QUIT "${entry%%:*}" 2>/dev/null
done
for entry in $pids; do
  for _ in 1 2 3 4 5 6 7 8 9 10; do alive "$entry" || break; sleep 0.2; done
  alive "$entry" && kill -KILL "${entry%%:*}" 2>/dev/null
done
for folder in $folders; do
  for file in "$folder"/run/*.pid; do # daemons that a setup script started before it could report them
    [ -s "$file" ] || continue
    pid=$(cat "$file")
    case $(cat "/proc/$pid/comm" 2>/dev/null) in ceph-mon | ceph-osd | radosgw) kill -KILL "$pid" 2>/dev/null ;; esac
  done
  rm -rf "$folder"
done
exit 0
