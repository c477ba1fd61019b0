#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Prints the container engine that the lab uses: LAB_ENGINE when set, else the first that answers.
#   engine.sh               docker or podman
#   engine.sh --connection  Ansible's connection plugin for it: LAB_CONNECTION when set. For root it is
#                           lab_host of tests/lab/connection_plugins, which is quicker.
set -euo pipefail
for engine in ${LAB_ENGINE:-docker podman}; do
  if command -v "$engine" >/dev/null 2>&1 && "$engine" info >/dev/null 2>&1; then
    case ${1:-}$engine in
      --connectiondocker)
        quick=community.docker.docker
        [ "$(id -u)" -ne 0 ] || ! nsenter --version >/dev/null 2>&1 || quick=lab_host
        printf '%s\n' "${LAB_CONNECTION:-$quick}"
        ;;
      --connectionpodman) printf '%s\n' "${LAB_CONNECTION:-containers.podman.podman}" ;;
      *) printf '%s\n' "$engine" ;;
    esac
    exit 0
  fi
done
echo "no container engine answers: install and start Docker or Podman" >&2
exit 1
