# METADATA
# title: A rollout that can be stopped in time
# description: |
#   A pod counts as available only after it has been ready for `minReadySeconds`. At its default of 0 the next old pod goes
#   the moment a new one first says that it is ready, and a model that fails under its first requests takes the service with
#   it. The default is as long as the probes need to find that out.
# related_resources:
# - ref: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#min-ready-seconds
#   description: minReadySeconds
# custom:
#   action: Deny
package surefoot.rollout_strategy

import data.surefoot.lib

params := lib.params({})

# Kubernetes wants it below progressDeadlineSeconds.
defaults contains {"path": "/spec/minReadySeconds", "value": seconds} if {
	deadline := lib.number(input.request.object.spec, "progressDeadlineSeconds", 600)
	seconds := min([deadline - 1, max(findings_take | {10})])
	seconds > 0
}

# For how long each probe of a regular container may fail until it is acted on. The delay of readiness does not count:
# time runs from the moment the pod is ready.
findings_take contains seconds if {
	container := containers[_]
	seconds := lib.patience(container.livenessProbe)
	lib.probed(container, "livenessProbe")
}

findings_take contains seconds if {
	container := containers[_]
	probe := container.readinessProbe
	seconds := lib.patience(probe) - lib.number(probe, "initialDelaySeconds", 0)
	lib.probed(container, "readinessProbe")
}

containers := input.request.object.spec.template.spec.containers
