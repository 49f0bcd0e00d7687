# METADATA
# title: Every container says what it needs
# description: |
#   The scheduler places pods by their requests, and a limit keeps a model that grows from taking its neighbours with it. A
#   request that is not given counts as the limit, as Kubernetes has it, and what the pod as a whole is given
#   (`spec.resources`) counts for each of its containers. Zero is not an amount.
# related_resources:
# - ref: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
#   description: Requests and limits
# schemas:
# - input: schema.input
# custom:
#   action: Deny
#   parameters:
#     require: {pattern: '^(requests|limits)[.](cpu|memory|ephemeral-storage|hugepages-[^ ]+|[^ /]+/[^ ]+)$', description: "what must be there, in the words of a ResourceQuota: requests.cpu, limits.memory"}
#     requests: {format: quantity, description: "requests to add where there are none: {cpu: 500m, memory: 1Gi}"}
#     limits: {format: quantity, description: "limits to add where there are none"}
#     ignoreContainers: {pattern: '^[^ ]+$', description: globs of container names that are not looked at}
#   codes:
#     no-request: A request that the parameter require names is missing or zero, and there is no limit that stands in for it.
#     no-limit: A limit that the parameter require names is missing or zero.
#     above-limit: A request is above its limit; the API server refuses that too.
#     gpu-differs: "GPUs are given whole: request and limit must be the same."
package surefoot.resources

import data.surefoot.lib
import data.surefoot.quantity

params := lib.params({
	"require": ["requests.cpu", "requests.memory", "limits.cpu", "limits.memory"],
	"requests": {},
	"limits": {},
	"ignoreContainers": [],
})

deny contains finding if {
	some list in ["containers", "initContainers"]
	container := pod[list][index]
	not at_a_glance(container)
	not is_ignored(container)
	some [kind, resource] in required
	not given(container, kind, resource)
	not given(pod, kind, resource)
	finding := {
		"code": sprintf("no-%s", [noun[kind]]),
		"msg": sprintf("%s has no %s %s", [lib.called(list, container), resource, noun[kind]]),
		"path": lib.pointer(list, index, ["resources", kind, resource]),
		"fix": sprintf("%s: %v", [resource, amount(container, kind, resource)]),
	}
}

# The API server refuses these itself; offline, and when a default would lead there, they are ours to find.
deny contains finding if {
	some [list, index, resource] in perhaps_above
	container := pod[list][index]
	request := container.resources.requests[resource]
	limit := container.resources.limits[resource]
	quantity.above(request, limit)
	not quantity.is_gpu(resource)
	not is_ignored(container)
	finding := {
		"code": "above-limit",
		"msg": sprintf("%s requests %v of %s, above its limit of %v", [lib.called(list, container), request, resource, limit]),
		"path": lib.pointer(list, index, ["resources", "requests", resource]),
		"fix": sprintf("%s: %v, or a higher limit", [resource, limit]),
	}
}

deny contains finding if {
	request := pod.resources.requests[resource]
	limit := pod.resources.limits[resource]
	quantity.above(request, limit)
	finding := {
		"code": "above-limit",
		"msg": sprintf("the pod requests %v of %s, above its limit of %v", [request, resource, limit]),
		"path": sprintf("/spec/template/spec/resources/requests/%s", [replace(resource, "/", "~1")]),
		"fix": sprintf("%s: %v, or a higher limit", [resource, limit]),
	}
}

deny contains finding if {
	some list in ["containers", "initContainers"]
	container := pod[list][index]
	not container.resources.requests == container.resources.limits # mostly they are the same
	request := container.resources.requests[resource]
	resource != "cpu" # they are most of them
	resource != "memory"
	quantity.is_gpu(resource)
	not request == container.resources.limits[resource]
	not equals_limit(container, resource, request)
	not is_ignored(container)
	limit := object.get(container.resources, ["limits", resource], "none")
	finding := {
		"code": "gpu-differs",
		"msg": sprintf(
			"%s requests %v of %s and its limit is %v; GPUs are not overcommitted, so both must be the same",
			[lib.called(list, container), request, resource, limit],
		),
		"path": lib.pointer(list, index, ["resources", wrong_of_gpu(limit), resource]),
		"fix": gpu_fix(resource, request, limit),
	}
}

defaults contains entry if {
	some kind in ["requests", "limits"]
	some resource, value in params[kind]
	not pod_wide(resource)
	some list in ["containers", "initContainers"]
	container := pod[list][index]
	not container.resources[kind][resource]
	not is_ignored(container)
	not contradicts(kind, container, resource, value)
	entry := {
		"path": lib.pointer(list, index, ["resources", kind, resource]),
		"value": sprintf("%v", [value]),
	}
}

pod := input.request.object.spec.template.spec

ignored := lib.names_like(params.ignoreContainers)

# In a function of its own: `not` of a member that is absent is undefined in OPA.
is_ignored(container) if container.name in ignored

# All of the four are there, and begin with a digit from 1 to 9: no need to look closer, unless more is required.
at_a_glance(container) if {
	container.resources.requests.cpu >= "1"
	container.resources.requests.memory >= "1"
	container.resources.limits.cpu >= "1"
	container.resources.limits.memory >= "1"
	only_the_four
}

only_the_four if {
	not input.parameters.require # nobody asked for more
} else if {
	count({one | some one in params.require} - {"requests.cpu", "requests.memory", "limits.cpu", "limits.memory"}) == 0
}

# Requests that may be above their limit. Where all quantities are of the simplest kinds a quick look leaves few of them over;
# it rounds, so the exact comparison has the last word.
perhaps_above := few if {
	quantity.plain(unequal)
	few := [[list, index, resource] |
		some [list, index, resource, request, limit] in unequal
		units.parse(request) >= units.parse(limit)
	]
} else := [[list, index, resource] | some [list, index, resource, _, _] in unequal]

unequal := [[list, index, resource, request, limit] |
	some list in ["containers", "initContainers"]
	resources := pod[list][index].resources
	resources.requests != resources.limits # mostly they are the same
	request := resources.requests[resource]
	limit := resources.limits[resource]
	request != limit
]

required := [[kind, resource] |
	some one in params.require
	kind := split(one, ".")[0]
	resource := trim_prefix(one, concat("", [kind, "."]))
]

# A container, or the pod as a whole, is given this much of the resource.
given(holder, kind, resource) if quantity.positive(holder.resources[kind][resource])

given(holder, "requests", resource) if {
	not holder.resources.requests[resource]
	quantity.positive(holder.resources.limits[resource])
}

# The pod as a whole is given an amount: a container's own would be weighed against it.
pod_wide(resource) if pod.resources[_][resource]

noun := {"requests": "request", "limits": "limit"}

# What to write where it is missing: the parameter's value where it fits, what the container requests, or an example.
amount(container, kind, resource) := value if {
	value := params[kind][resource]
	not contradicts(kind, container, resource, value)
} else := sprintf("%v, what it requests", [request]) if {
	kind == "limits"
	request := container.resources.requests[resource]
	quantity.positive(request)
} else := example(resource)

example("memory") := "2Gi, or what it needs"

example("cpu") := "500m, or what it needs"

example(resource) := "1, or what it needs" if not resource in {"cpu", "memory"}

# A request alone lacks its limit; a request beside a limit is what is wrong.
wrong_of_gpu(limit) := "requests" if {
	limit != "none"
} else := "limits"

gpu_fix(resource, request, limit) := sprintf("%s: %v, or leave the request out", [resource, limit]) if {
	limit != "none"
} else := sprintf("%s: %v", [resource, request])

equals_limit(container, resource, request) if {
	quantity.milli(request) == quantity.milli(container.resources.limits[resource])
}

# A default is left out where it would contradict what is there, or the other default. A request that is not given is the
# limit already.
contradicts("limits", container, resource, value) if quantity.above(container.resources.requests[resource], value)

contradicts("requests", container, resource, _) if container.resources.limits[resource]

contradicts("requests", _, resource, value) if quantity.above(value, params.limits[resource])
