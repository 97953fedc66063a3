#!/bin/bash
# One run of `ringrl train` on all workers of a TPU slice:
#   NAME=my-slice ZONE=us-east5-a FOLDER=/mnt/shared/runs/a ./tpu_pod.sh experiment=dark_room attention.layout=zigzag
# Every worker has ringrl in ~/ringrl/.venv (pip install -e '.[tpu]'), and FOLDER on a disk that all of them see. Start it
# again after a failure or a preemption: it goes on where it was. Pods of GKE need no script: TPU_WORKER_HOSTNAMES tells
# ringrl who is who, and `ringrl train cluster=tpu_pod ...` is all their command.
set -euo pipefail
: "${NAME:?the name of the slice}" "${ZONE:?its zone}" "${FOLDER:?the folder of the run, on a disk of all workers}"

arguments=""
if [ $# -gt 0 ]; then
  printf -v arguments ' %q' "$@"
fi

# Each worker asks the machine's metadata for its number and for all workers, by the two names that JAX uses: a list of
# hosts, or of name:number:address.
read -r -d '' command <<END || true
attribute() {
  curl --silent --fail --header 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/\$1"
}
worker=\$(attribute agent-worker-number) && workers=\$(attribute worker-network-endpoints) || exit 1
first=\${workers%%,*}
IFS=, read -r -a list <<< "\$workers"
cd ~/ringrl && exec .venv/bin/ringrl train cluster=tpu_pod$arguments \
  distributed.coordinator="\${first##*:}:8476" distributed.process_id="\$worker" \
  distributed.num_processes="\${#list[@]}" hydra.run.dir='$FOLDER' resume=auto
END
gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$command"
