# METADATA
# title: A rollout that can be stopped in time
# description: |
#   A rollout that may stop every old pod before a new one serves is an outage with a date. A pod counts as available only
#   after it has been ready for `minReadySeconds`; at its default of 0 the next old pod goes the moment a new one first says
#   that it is ready, and a model that fails under its first requests takes the service with it. That default is made as long
#   as the probes need to find that out, and `progressDeadlineSeconds` long enough for a model that loads slowly. What can
#   be gone back to must still be there: at least two old ReplicaSets.
# related_resources:
# - ref: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#strategy
#   description: Strategy, minReadySeconds, progressDeadlineSeconds, revisionHistoryLimit
# schemas:
# - input: schema.input
# custom:
#   action: Deny
#   codes:
#     recreate: Strategy Recreate stops every pod before a new one loads.
#     empties: maxUnavailable, rounded as Kubernetes does, allows a rollout to stop every pod before a new one is ready.
#     short-history: revisionHistoryLimit keeps fewer than two old ReplicaSets, so there may be nothing to go back to.
#     rollback-annotation: The annotation deprecated.deployment.rollback.to makes Kubernetes put an old revision back behind everybody's back.
#     surge-needs-gpu: The rollout needs a free GPU before it stops a pod, and without one it never ends.
package surefoot.rollout_strategy

import data.surefoot.lib
import data.surefoot.quantity

params := lib.params({})

deny contains finding if {
	spec.strategy.type == "Recreate"
	finding := {
		"code": "recreate",
		"msg": "strategy Recreate stops every pod before the first new one starts to load, and so does going back",
		"path": "/spec/strategy/type",
		"fix": "type: RollingUpdate",
	}
}

# At 0 replicas there is nothing to empty.
deny contains finding if {
	rolling != {"maxSurge": "25%", "maxUnavailable": "25%"} # the API's defaults never do
	unavailable >= replicas
	replicas > 0
	finding := {
		"code": "empties",
		"msg": sprintf(
			"maxUnavailable %v with maxSurge %v lets a rollout stop %d of %d replicas before a new one is ready",
			[rolling.maxUnavailable, rolling.maxSurge, min([unavailable, replicas]), replicas],
		),
		"path": "/spec/strategy/rollingUpdate/maxUnavailable",
		"fix": fewer,
	}
}

deny contains finding if {
	limit := spec.revisionHistoryLimit
	limit < 2
	is_number(limit)
	finding := {
		"code": "short-history",
		"msg": sprintf("revisionHistoryLimit %v keeps too few old ReplicaSets, so the last good one may be gone when it is needed", [limit]),
		"path": "/spec/revisionHistoryLimit",
		"fix": "revisionHistoryLimit: 10",
	}
}

# The Deployment controller obeys it to this day.
deny contains finding if {
	input.request.object.metadata.annotations["deprecated.deployment.rollback.to"]
	finding := {
		"code": "rollback-annotation",
		"msg": "annotation deprecated.deployment.rollback.to makes Kubernetes put an old revision back, whatever the files say",
		"path": "/metadata/annotations/deprecated.deployment.rollback.to",
		"fix": sprintf("leave it out, and go back with: kubectl rollout undo deploy/%s -n %s", [input.request.name, input.request.namespace]),
	}
}

warn contains finding if {
	not plenty
	unavailable == 0
	count(whole_gpus) > 0
	finding := {
		"code": "surge-needs-gpu",
		"msg": sprintf(
			"a rollout starts a new pod before it stops an old one (maxUnavailable %v of %d: none), and without a free %s it never ends",
			[rolling.maxUnavailable, replicas, concat(" and ", sort(whole_gpus))],
		),
		"path": "/spec/strategy/rollingUpdate/maxUnavailable",
		"fix": without_surge,
	}
}

# It stays by itself, and no longer than the deadline allows.
defaults contains {"path": "/spec/minReadySeconds", "value": min_ready, "sticky": false} if min_ready > 0

# Only the API's own: one that somebody gave thought to stays, and `probes` warns of it.
defaults contains {"path": "/spec/progressDeadlineSeconds", "value": seconds} if {
	deadline == 600
	starting > deadline
	seconds := min([2147483647, lib.with_a_fifth(starting + min_ready)]) # the API takes no more
}

spec := input.request.object.spec

containers := spec.template.spec.containers

replicas := lib.replicas(input.request.object)

rolling := spec.strategy.rollingUpdate

# A quarter of them is at least one.
plenty if {
	rolling.maxUnavailable == "25%" # the API's default
	replicas >= 4
}

# Kubernetes' own rounding: surge up, unavailable down, and where both come to nothing one pod may be unavailable.
unavailable := pods if {
	pods := floor(hundredths(rolling.maxUnavailable) / 100)
	pods > 0
} else := 1 if {
	hundredths(rolling.maxUnavailable) >= 0
	hundredths(rolling.maxSurge) == 0
} else := 0 if {
	hundredths(rolling.maxUnavailable) >= 0
}

# Of pods; so that nothing is rounded before its time.
hundredths(amount) := amount * 100 if is_number(amount)

hundredths("25%") := 25 * replicas # the API's default

hundredths(amount) := quantity.integer(trim_suffix(amount, "%")) * replicas if {
	is_string(amount)
	amount != "25%"
	regex.match(`^[0-9]{1,9}%$`, amount)
}

# What may be unavailable at once and leaves a pod to serve.
fewer := "maxUnavailable: 25%" if {
	hundredths(rolling.maxSurge) > 0
} else := "maxUnavailable: 1" if {
	replicas > 1
} else := "maxSurge: 1, maxUnavailable: 0"

# A single replica cannot go before another one is there.
without_surge := "maxSurge: 0, maxUnavailable: 1" if {
	replicas != 1
} else := "keep one free, or run two replicas with maxSurge: 0, maxUnavailable: 1"

# Those that a pod gets whole, by name; of a part there is more often one left.
whole_gpus := {resource |
	some list in ["containers", "initContainers"]
	given := spec.template.spec[list][_].resources[_]
	amount := given[resource]
	resource != "cpu" # they are most of them
	resource != "memory"
	is_string(resource) # `claims` is a list
	endswith(resource, "/gpu")
	quantity.positive(amount)
}

deadline := lib.number(spec, "progressDeadlineSeconds", 600)

# What is there; then what was, because what was added stays; then as long as probes need to find a failure. Kubernetes wants
# it below progressDeadlineSeconds.
min_ready := seconds if {
	seconds := given_seconds(input.request.object)
} else := seconds if {
	seconds := min([deadline - 1, given_seconds(input.request.oldObject)])
} else := min([deadline - 1, max(findings_take | {10})])

# 0 is the API's default, which counts as absent.
given_seconds(deployment) := seconds if {
	seconds := deployment.spec.minReadySeconds
	is_number(seconds)
	seconds > 0
}

# For how long the slowest container may take to start.
starting := max([lib.patience(container.startupProbe) |
	container := containers[_]
	lib.probed(container, "startupProbe")
])

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
