#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs inside a lab host, once: installs the simulators and seeds the state that the users describe.
#   seed.sh llm-01|llm-02|llm-03|gw-01|svc-01|registry
set -euo pipefail

host=$1
done_marker=/var/lib/hx-lab/seeded
[ ! -e "$done_marker" ] || exit 0

base=/opt/hx-infrastructure
node=$base/$host
start_order=()

simulated_gpu() { # PROFILE
  install -D -m 0755 /lab/sim_gpu/libnvidia-ml.so.1 /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1
  install -m 0755 /lab/sim_gpu/nvidia-smi /usr/bin/nvidia-smi
  install -D -m 0644 "/lab/sim_gpu/profiles/$1.conf" /etc/sim-gpu/profile.conf
  echo 'd /dev/shm/sim-gpu 1777 root root -' >/etc/tmpfiles.d/sim-gpu.conf
  systemd-tmpfiles --create sim-gpu.conf
  ldconfig
}

accounts() {
  # As the vendor's installer makes it.
  useradd --system --uid 999 --user-group --shell /bin/false --create-home \
    --home-dir /usr/share/ollama ollama
  usermod --append --groups video ollama
  useradd --uid 1000 --create-home --shell /bin/bash agent0
}

vendor_install() { # VERSION MODELS-DIR
  tar -C /usr/local -xzf "/lab/releases/v$1/ollama-linux-amd64.tgz"
  cat >/etc/systemd/system/ollama.service <<UNIT
[Unit]
Description=Ollama Service
After=network-online.target

[Service]
ExecStart=/usr/local/bin/ollama serve
User=ollama
Group=ollama
Restart=always
RestartSec=3
Environment="PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Environment="OLLAMA_MODELS=$2"
Environment="OLLAMA_NOPRUNE=1"
Environment="OLLAMA_HOST=0.0.0.0:11434"

[Install]
WantedBy=default.target
UNIT
  start_order+=(ollama.service)
}

# How fast the simulated engine answers: a twentieth of the users' own first-token times, so that a
# run is not spent waiting, and in the same order of models.
schedule() { # NAME=LOAD-SECONDS,TTFT-SECONDS,TOKENS-PER-SECOND,VRAM-BYTES...
  local entry name rest load ttft speed vram
  mkdir -p /etc/sim-ollama
  {
    printf '{"seed": 42, "defaults": {"jitter": 0.03, "prompt_tokens_per_second": 20000}, "models": {'
    for entry in "$@"; do
      IFS=' ' read -r name rest <<<"${entry/=/ }"
      IFS=, read -r load ttft speed vram <<<"$rest"
      [ "$entry" = "$1" ] || printf ', '
      printf '"%s": {"load_seconds": %s, "ttft_seconds": %s, "tokens_per_second": %s, "vram_bytes": %s}' \
        "$name" "$load" "$ttft" "$speed" "$vram"
    done
    printf '}}\n'
  } >/etc/sim-ollama/config.json
}

disk_at() { # MOUNT-POINT
  local unit
  mkdir -p "$1"
  unit=$(systemd-escape --path --suffix=mount "$1")
  cat >"/etc/systemd/system/$unit" <<UNIT
[Unit]
Description=Bulk storage

[Mount]
What=/dev/sda1
Where=$1
Type=ext4

[Install]
WantedBy=local-fs.target
UNIT
  systemctl daemon-reload
  systemctl enable --quiet --now "$unit"
}

seed_llm_01() {
  local script place
  accounts
  simulated_gpu rtx-4070-ti-x2
  mkdir -p "$node"/{config/ollama,scripts/service/ollama,health,logs,models}

  # The disk stands inside the node's tree, by unit and by fstab.
  disk_at "$node/data/llm_bulk_storage"
  echo "/dev/sda1 $node/data/llm_bulk_storage ext4 defaults 0 2" >>/etc/fstab
  place=$node/data/llm_bulk_storage
  mkdir -p "$place/archive"
  head -c 300000 /dev/zero | tr '\0' 'x' >"$place/archive/2025-07-prompts.jsonl"
  echo 'moved from the old workstation, keep' >"$place/archive/README"
  chown -R agent0:agent0 "$place"

  # The store is on the root file system; who copied what can still be seen in its owners.
  cp -a --sparse=always /lab/models/llm-01 "$node/models/production"
  chown -R ollama:ollama "$node/models/production"
  chown agent0:agent0 "$node/models" "$node/models/production"
  find "$node/models/production/blobs" -name '*-partial*' -exec touch -d '12 days ago' {} +
  find "$node/models/production/blobs" -name '*-partial-[0-4]*' -exec chown agent0:agent0 {} +
  find "$node/models/production/manifests" -type f -path '*qwen3*' -exec chown root:root {} +
  chmod -R o+rX "$node"

  vendor_install 0.11.4 "$node/models/production"
  schedule llama3.2:3b=0.2,0.082,400,2800000000 qwen3:1.7b=0.2,0.099,500,2000000000 \
    mistral-small3.2:latest=0.5,0.272,250,15600000000

  cat >"$node/config/ollama/ollama.env" <<'ENVFILE'
# ollama settings llm-01  (agent0, edited by hand)
OLLAMA_MODELS="/data/llm_bulk_storage"
OLLAMA_HOST='0.0.0.0:11434'
 export MODEL_LLAMA3_2_3B = "llama3.2:3b"   # 2.0 GB
OLLAMA_MODEL_QWEN='qwen3:1.7b'
this line was pasted by mistake
MODEL_PHI3=phi3:latest
OLLAMA_MODELS_AVAILABLE="llama3.2:3b,phi3:latest"
OLLAMA_MODELS_COUNT=2
ENVFILE
  printf 'OLLAMA_KEEP_ALIVE=5m\r\n' >>"$node/config/ollama/ollama.env"
  chown -R agent0:agent0 "$node/config"
  chmod 0777 "$node/config"
  chmod 0666 "$node/config/ollama/ollama.env"

  for script in start stop restart status; do
    cat >"$node/scripts/service/ollama/$script.sh" <<SCRIPT
#!/bin/bash
# llm-01 local copy
systemctl $script ollama
echo OK
SCRIPT
  done
  chmod 0777 "$node"/scripts/service/ollama/*.sh
  chown -R agent0:agent0 "$node/scripts"
  printf 'restart ollama if slow\n' >"$node/health/notes.txt"
  chmod 0666 "$node/health/notes.txt"
  chmod 0777 "$node/health" "$node/logs"
}

seed_llm_02() {
  accounts
  simulated_gpu rtx-5060-ti-x2
  mkdir -p "$node"/{config/ollama,scripts,health,logs/gpu,data,models} /mnt
  disk_at /data/llm_bulk_storage
  ln -s /data/llm_bulk_storage "$node/data/llm_bulk_storage"
  mkdir -p /data/llm_bulk_storage/ollama
  cp -a --sparse=always /lab/models/llm-02 /data/llm_bulk_storage/ollama/models
  chown -R ollama:ollama /data/llm_bulk_storage/ollama
  ln -s /data/llm_bulk_storage/ollama/models /mnt/active_llm_models
  vendor_install 0.11.4 /mnt/active_llm_models
  schedule phi3:latest=0.2,0.05,500,3000000000 gemma2:2b=0.2,0.094,450,2400000000 \
    cogito:32b=0.6,0.3,200,21000000000 deepcoder:14b=0.4,0.2,300,10500000000 \
    dolphin3:8b=0.3,0.12,400,6000000000
}

# The host that moves from Ollama to vLLM; until then the second one that holds llm-01's models.
seed_llm_03() {
  accounts
  simulated_gpu rtx-5070-ti-x1
  mkdir -p "$node"/{config/ollama,scripts,health,logs/gpu,data,models} /mnt
  cp -a --sparse=always /lab/models/llm-01 "$base/models"
  find "$base/models/blobs" -name '*-partial*' -delete
  chown -R ollama:ollama "$base/models"
  ln -s "$base/models" /mnt/active_llm_models
  vendor_install 0.11.4 /mnt/active_llm_models
  schedule llama3.2:3b=0.2,0.09,400,2800000000 qwen3:1.7b=0.2,0.1,500,2000000000 \
    mistral-small3.2:latest=0.5,0.3,200,13000000000
}

# The gateway and the host of databases and metrics start as plain Debian hosts.
seed_gw_01() { answers=''; }
seed_svc_01() { answers=''; }

seed_registry() {
  mkdir -p /var/lib/sim-registry
  cat >/etc/systemd/system/sim-registry.service <<'UNIT'
[Unit]
Description=Simulated model registry and release server of the lab

[Service]
ExecStart=/usr/bin/python3 /lab/sim_registry.py --bind 0.0.0.0 --port 5000 --store /lab/models/registry --releases /lab/releases --releases-port 8080
Environment=PYTHONDONTWRITEBYTECODE=1
DynamicUser=yes
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
UNIT
  start_order+=(sim-registry.service)
}

case $host in
  registry) answers=http://127.0.0.1:8080/v0.11.4/sha256sum.txt ;;
  *) answers=http://127.0.0.1:11434/api/version ;;
esac
"seed_${host//-/_}"
systemctl daemon-reload
[ "${#start_order[@]}" -eq 0 ] || systemctl enable --quiet --now "${start_order[@]}"
for attempt in $(seq 1 100); do
  if [ -z "$answers" ] || curl --silent --fail --max-time 5 --output /dev/null "$answers"; then
    break
  fi
  if [ "$attempt" -eq 100 ]; then
    echo "$host: $answers did not answer within 20 s" >&2
    exit 1
  fi
  sleep 0.2
done
mkdir -p "$(dirname "$done_marker")"
date --utc +%FT%TZ >"$done_marker"
echo changed
