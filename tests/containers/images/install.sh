#!/bin/sh
# Installs Debian packages during a build, from the host's mirror where the build was given one as a secret.
set -eu
apt() {
    if [ -s /run/sources.list ]; then
        set -- -o Dir::Etc::SourceList=/run/sources.list -o Dir::Etc::SourceParts=- "$@"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -qq "$@"
}
apt -o APT::Update::Error-Mode=any update
apt install --yes --no-install-recommends "$@"
