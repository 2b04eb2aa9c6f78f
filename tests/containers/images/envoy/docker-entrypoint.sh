#!/usr/bin/env sh
# Flags alone are Envoy's. Started as root, the command becomes the user envoy, unless ENVOY_UID=0.
set -e
case "$1" in -*) set -- envoy "$@" ;; esac
if [ "$1" = envoy ] && [ -n "$loglevel" ]; then set -- "$@" --log-level "$loglevel"; fi
if [ "$(id -u)" != 0 ] || [ "$ENVOY_UID" = 0 ]; then exec "$@"; fi
if [ -n "$ENVOY_UID" ]; then usermod --uid "$ENVOY_UID" envoy; fi
if [ -n "$ENVOY_GID" ]; then groupmod --gid "$ENVOY_GID" envoy; fi
chown envoy:envoy /dev/stdout /dev/stderr
exec setpriv --reuid=envoy --regid=envoy --init-groups "$@"
