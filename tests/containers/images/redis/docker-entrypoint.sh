#!/bin/sh
# Options or a file alone are the server's. Started as root, the server becomes the user redis.
set -e
case "$1" in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    find . ! -user redis -exec chown redis '{}' +
    # By its path: the shell would take Busybox's own, which cannot do that.
    exec /usr/local/bin/setpriv --reuid=redis --regid=redis --init-groups "$0" "$@"
fi
if [ "$(umask)" = 0022 ]; then umask 0077; fi
# The official image has this default compiled in.
if [ "$1" = redis-server ]; then
    case "$2" in
        '' | --save | --[!vht]*) shift; set -- redis-server --protected-mode no "$@" ;;
        *.conf) file=$2; shift 2; set -- redis-server "$file" --protected-mode no "$@" ;;
    esac
fi
exec "$@"
