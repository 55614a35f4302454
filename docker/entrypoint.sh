#!/usr/bin/env bash
# The container's first process: the official image's entrypoint, and beside the server cdf-gateway-api, if CDF_GATEWAY_CDF_URL
# names a CDF cluster.
set -euo pipefail

if [[ -n ${CDF_GATEWAY_CDF_URL:-} && ${1:-} == postgres ]]; then
    gateway-api.sh &
fi
exec docker-entrypoint.sh "$@"
