#!/bin/sh
# Makes the secrets of compose.yaml, files in secrets/; those that exist stay as they are. To change one, remove its file,
# run this again and have the containers made anew. Grafana takes its own at its first start alone.
set -eu
cd "$(dirname "$0")"
# The users in the containers have other numbers than you, and must be able to read the files; the folder, which other
# users of this machine cannot enter, keeps them from everybody else.
mkdir -p secrets
chmod 0700 secrets
for name in mqtt_password mqtt_reader_password grafana_password; do
    [ -s "secrets/$name" ] && continue
    head -c 24 /dev/urandom | base64 | tr '+/' '-_' > "secrets/$name"
    chmod 0444 "secrets/$name"
    echo "made secrets/$name"
done
# What else the containers read has the modes of this checkout; a strict umask would keep it from their users.
for path in visaged.yaml prometheus.yml mosquitto grafana ../prometheus/rules ../grafana/visaged.json; do
    [ ! -e "$path" ] || chmod -R a+rX "$path"
done
