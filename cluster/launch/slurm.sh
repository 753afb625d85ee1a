#!/bin/bash
# One study on a Slurm cluster: head and workers run as long as the study.
#
#   sbatch --nodes=4 --gpus-per-task=1 cluster/launch/slurm.sh my-study.yaml /shared/runs
#   tail -f study-JOBID.log
#   scancel --signal=TERM --batch JOBID       # stops it cleanly; the sbatch line above resumes
#
# Submit it with the environment active that has the platform, on a file system that all nodes share, as the storage is.
#SBATCH --job-name=study
#SBATCH --output=study-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -euo pipefail

file=${1:?the study file}
storage=${2:?a folder that all nodes share}

# Anyone on the cluster's network could run code in a Ray cluster without a token.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
ray get-auth-token --generate > /dev/null

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Always behind & or in $( ): the process is srun itself, so that ending it ends what it runs.
on() {
  exec srun --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --overlap --nodelist="$1" "${@:2}"
}
address=$(on "${nodes[0]}" hostname --ip-address | awk '{print $1}')
head=$address:$((20000 + SLURM_JOB_ID % 20000))
resources=(--num-cpus="$SLURM_CPUS_PER_TASK" --temp-dir="/tmp/ray-$SLURM_JOB_ID")

trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
on "${nodes[0]}" ray start --head --block --node-ip-address="$address" --port="${head#*:}" --include-dashboard=false \
  "${resources[@]}" &
started=($!)
# A node that does not start would be waited for until the time is over.
wait_a_moment() {
  for process in "${started[@]}"; do
    kill -0 "$process" || { echo "Ray did not start on every node; see the lines above" >&2; exit 1; }
  done
  sleep 2
}
until ray health-check --address "$head" 2> /dev/null; do wait_a_moment; done
for node in "${nodes[@]:1}"; do
  on "$node" ray start --block --address="$head" "${resources[@]}" &
  started+=($!)
done
# A study counts what the cluster has when it starts.
until [ "$(ray status --address "$head" 2> /dev/null | grep --count ' node_')" -ge "${#nodes[@]}" ]; do
  wait_a_moment
done

python -m study run "$file" --address "$head" --storage "$storage" &
driver=$!
trap 'kill -TERM "$driver"' TERM
ended=0
wait "$driver" || ended=$?
# A signal cuts a wait short; the driver then still stores what it has.
while kill -0 "$driver" 2> /dev/null; do
  ended=0
  wait "$driver" || ended=$?
done
exit "$ended"
