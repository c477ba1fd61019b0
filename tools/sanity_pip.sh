#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Lets ansible-test make its virtual environments without the host from which it fetches pip's installer, and
# which many networks don't reach: Python brings a pip along. ansible-test runs what it finds in its cache.
set -euo pipefail
version=$(python - <<'PYTHON'
import pathlib
import re

import ansible_test

source = pathlib.Path(ansible_test.__path__[0], "_internal", "python_requirements.py").read_text()
print(re.search(r"default_packages = dict\(\s*pip='([0-9.]+)'", source).group(1))
PYTHON
)
script=~/.ansible/test/cache/get_pip_${version//./_}.py
[ ! -e "$script" ] || exit 0
mkdir -p "$(dirname "$script")"
printf 'import ensurepip\n\nensurepip.bootstrap(default_pip=True)\n' >"$script.new"
mv "$script.new" "$script"
