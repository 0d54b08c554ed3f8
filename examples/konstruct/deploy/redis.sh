#!/bin/sh
# Start Redis with three users: `default` off, because RESET returns to it; `konstruct`, the fleet,
# on tenantry's rules; `operator`, which may list the names of keys and read nothing.
set -eu
umask 077
rules=$(cat "$(dirname "$0")/service_acl_rules.txt")
users="${TMPDIR:-/tmp}/users.acl"
cat >"$users" <<USERS
user default off
user konstruct reset $rules on >$REDIS_PASSWORD
user operator reset resetchannels -@all +scan +ping +hello +client|setinfo ~* on >$OPERATOR_PASSWORD
USERS
exec redis-server --port "${REDIS_PORT:-6379}" --aclfile "$users" --save "" --appendonly no
