#!/bin/sh
# Installs Debian packages during a build, from the archives of the host's apt, which the build gets as a secret.
set -eu
apt() {
    set -- -o Dir::Etc::SourceList=/run/sources.list -o Dir::Etc::SourceParts=- "$@"
    DEBIAN_FRONTEND=noninteractive apt-get -qq "$@"
}
apt -o APT::Update::Error-Mode=any update
apt install --yes --no-install-recommends "$@"
