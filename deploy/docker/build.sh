#!/bin/sh
# The steps of the image. The Dockerfile runs them, and so does deploy/docker/steps.py in a clean root where there is no engine.
#   build.sh tools | packages | program    in the stage that builds: /opt/postroad comes of it
#   build.sh system                        in the stage that is shipped: its user and folders
set -eu
source=$(cd "$(dirname "$0")/../.." && pwd)
docker=$source/deploy/docker
into=/opt/postroad
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

case $1 in
  tools)
    python3 -m venv /tools
    /tools/bin/pip install --quiet --require-hashes -r "$docker/tools.lock"
    ;;
  packages)
    # What comes as source only is built by the tools above, which have hashes too, and not by what pip would fetch for it.
    /tools/bin/pip wheel --quiet --no-build-isolation --require-hashes --wheel-dir /wheels -r "$docker/requirements.lock"
    python3 -m venv --without-pip $into
    /tools/bin/pip --python $into/bin/python install --quiet --no-index --no-deps /wheels/*.whl
    ;;
  program)
    /tools/bin/pip wheel --quiet --no-build-isolation --no-index --no-deps --wheel-dir /program "$source"
    /tools/bin/pip --python $into/bin/python install --quiet --no-index --no-deps /program/*.whl
    install -m 755 "$docker/health.py" $into/bin/postroad-health
    $into/bin/python -m pip --version >/dev/null 2>&1 && { echo "the image must not have pip" >&2; exit 1; }
    /tools/bin/cyclonedx-py environment --pyproject "$source/pyproject.toml" --output-reproducible \
      --output-file $into/sbom.cdx.json $into/bin/python
    ;;
  system)
    command -v tini >/dev/null || {
      apt-get update -qq && apt-get install -qq -y --no-install-recommends tini ca-certificates >/dev/null && rm -rf /var/lib/apt/lists/*
    }
    groupadd --gid 10001 postroad
    useradd --uid 10001 --gid postroad --home-dir /var/lib/postroad --no-create-home --shell /usr/sbin/nologin postroad
    # A named volume takes the owner of the folder that it is mounted at.
    install -d -o postroad -g postroad -m 750 /var/lib/postroad /var/lib/postroad-content
    ;;
  *)
    sed -n '2,4p' "$0" >&2
    exit 2
    ;;
esac
