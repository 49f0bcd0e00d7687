# METADATA
# title: A namespace with walls
# description: |
#   Models of several teams share a cluster. Without a ResourceQuota one team's rollout takes all GPUs; without a LimitRange a
#   Pod that no Deployment owns runs without limits; and without a NetworkPolicy that denies by default, whoever gets into one
#   Pod of the cluster can ask every model. Looks at guarded namespaces on a live cluster, never at a request.
# related_resources:
# - ref: https://kubernetes.io/docs/concepts/security/multi-tenancy/#isolation
#   description: What keeps namespaces apart
# schemas:
# - input: schema.input
# custom:
#   action: Warn
#   needs: [isolation]
#   parameters:
#     denyByDefault:
#       element: {enum: [Ingress, Egress]}
#       description: "traffic that a NetworkPolicy must deny to all Pods by default: Ingress, Egress"
#   codes:
#     no-quota: The namespace has no ResourceQuota that bounds anything.
#     no-limit-range: The namespace has no LimitRange, so a Pod that names no limits has none.
#     no-default-deny: The namespace has no NetworkPolicy that selects every Pod and allows none of the traffic named in denyByDefault.
package surefoot.isolation

import data.surefoot.lib

params := lib.params({"denyByDefault": ["Ingress"]})

warn contains finding if {
	not has_quota
	finding := {
		"code": "no-quota",
		"msg": sprintf("namespace %s has no ResourceQuota, so one Deployment may take all that the cluster has", [namespace]),
		"fix": sprintf("kubectl create quota models -n %s --hard=requests.cpu=32,requests.memory=128Gi, with figures of yours", [namespace]),
	}
}

warn contains finding if {
	not has_limit_range
	finding := {
		"code": "no-limit-range",
		"msg": sprintf("namespace %s has no LimitRange, so a Pod that names no limits has none", [namespace]),
		"fix": "a LimitRange with spec: {limits: [{type: Container, defaultRequest: {cpu: 100m, memory: 128Mi}, default: {cpu: 500m, memory: 512Mi}}]}",
	}
}

warn contains finding if {
	allowed := [traffic | some traffic in params.denyByDefault; not denied(traffic)]
	count(allowed) > 0
	finding := {
		"code": "no-default-deny",
		"msg": sprintf("namespace %s has no NetworkPolicy that denies %s to all its Pods by default", [namespace, concat(" and ", allowed)]),
		"fix": sprintf("a NetworkPolicy with spec: {podSelector: {}, policyTypes: [%s]}, and others for what is to be allowed", [concat(", ", allowed)]),
	}
}

namespace := input.request.name

# One that bounds nothing is none.
has_quota if input.context.isolation.resourceQuotas[_].spec.hard[_]

has_limit_range if input.context.isolation.limitRanges[_].spec.limits[_]

# A policy selects every Pod, speaks of this kind of traffic, and allows none of it.
denied(traffic) if {
	policy := input.context.isolation.networkPolicies[_]
	not selects(policy)
	speaks_of(policy, traffic)
	not allows(policy, traffic)
}

selects(policy) if policy.spec.podSelector[_][_]

# Where it does not say, of what comes in.
speaks_of(policy, traffic) if policy.spec.policyTypes[_] == traffic

speaks_of(policy, "Ingress") if not policy.spec.policyTypes

allows(policy, traffic) if policy.spec[lower(traffic)][_]
