#!/bin/bash
# Starts TorchServe in the background, or runs the command given, and then stays, like the real one.
set -e
if [ "$1" = serve ]; then
    torchserve --start --ts-config /home/model-server/config.properties --disable-token-auth
else
    eval "$@"
fi
exec tail -f /dev/null
