#!/bin/sh
# What the trial's containers need before they start: three phantom hospitals, keys for a day of tests, site files, indexes.
# Everything lies below $TRIAL (default /trial); a second call leaves what is there. It works without containers, too:
#     TRIAL=trial TRIAL_HOST=127.0.0.1 sh docker/trial.sh
set -eu
mkdir -p "${TRIAL:-/trial}"
trial=$(cd "${TRIAL:-/trial}" && pwd)
host=${TRIAL_HOST:-server}
port=${TRIAL_PORT:-9443}
if [ -e "$trial/ready" ]; then exit 0; fi

hilum phantom "$trial/archives" --sites 3 --patients 60
hilum admin dev-keys "$trial/keys" --sites 3 --host "$host" --port "$port"
for n in 0 1 2; do
    papers=$trial/keys/site-$n
    {
        printf '[site]\nname = "site-%s"\n\n' "$n"
        printf '[data]\ndicom = "%s"\nlabels = "%s"\n\n' "$trial/archives/site-$n/dicom" "$trial/archives/site-$n/labels.csv"
        printf '[state]\nfolder = "%s"\n\n' "$trial/home-$n/site"
        cat "$papers/link.toml"
    } > "$papers/site.toml"
    hilum site index "$trial/archives/site-$n/dicom" --home "$trial/home-$n"
done
hilum study new "$trial/study.toml"
touch "$trial/ready"
