package surefoot.isolation_test

import data.surefoot.fixtures_test as fixtures
import data.surefoot.isolation

quota := {"metadata": {"name": "models"}, "spec": {"hard": {"requests.nvidia.com/gpu": "8"}}}

limits := {"metadata": {"name": "defaults"}, "spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]}}

closed := {"metadata": {"name": "closed"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}

holding(quotas, ranges, policies) := {
	"request": {
		"name": "shop",
		"namespace": "shop",
		"kind": {"group": "", "version": "v1", "kind": "Namespace"},
		"object": {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
	},
	"parameters": {},
	"context": {"isolation": {"resourceQuotas": quotas, "limitRanges": ranges, "networkPolicies": policies}},
}

codes(review) := found if {
	found := fixtures.codes(isolation.warn) with input as review
}

test_parameters if {
	isolation.params == {"denyByDefault": ["Ingress"]} with input as {}
}

test_with_walls if {
	codes(holding([quota], [limits], [closed])) == set()
}

test_messages if {
	findings := isolation.warn with input as holding([], [], [])
	findings == {
		{
			"code": "no-quota",
			"msg": "namespace shop has no ResourceQuota, so one Deployment may take all that the cluster has",
			"fix": "kubectl create quota models -n shop --hard=requests.cpu=32,requests.memory=128Gi, with figures of yours",
		},
		{
			"code": "no-limit-range",
			"msg": "namespace shop has no LimitRange, so a Pod that names no limits has none",
			"fix": "a LimitRange with spec: {limits: [{type: Container, defaultRequest: {cpu: 100m, memory: 128Mi}, default: {cpu: 500m, memory: 512Mi}}]}",
		},
		{
			"code": "no-default-deny",
			"msg": "namespace shop has no NetworkPolicy that denies Ingress to all its Pods by default",
			"fix": "a NetworkPolicy with spec: {podSelector: {}, policyTypes: [Ingress]}, and others for what is to be allowed",
		},
	}
}

test_one_that_bounds_nothing_is_none if {
	codes(holding([{"spec": {"hard": {}}}, {"spec": {}}, {}], [limits], [closed])) == {"no-quota"}
	codes(holding([quota], [{"spec": {"limits": []}}], [closed])) == {"no-limit-range"}
	codes(holding([{"spec": {}}, quota], [{}, limits], [{}, closed])) == set()
}

with_policy(spec) := codes(holding([quota], [limits], [{"spec": spec}]))

test_default_deny if {
	closing := [
		{"podSelector": {}, "policyTypes": ["Ingress"]},
		{"podSelector": {"matchLabels": {}, "matchExpressions": []}, "policyTypes": ["Ingress"], "ingress": []},
		{"podSelector": {}}, # before the API server completes it
		{"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [{}]},
	]
	[spec | some spec in closing; with_policy(spec) != set()] == []
	open := [
		{"podSelector": {"matchLabels": {"app": "churn"}}, "policyTypes": ["Ingress"]},
		{"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}, "policyTypes": ["Ingress"]},
		{"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]},
		{"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]},
		{"podSelector": {}, "policyTypes": ["Egress"]},
	]
	[spec | some spec in open; with_policy(spec) != {"no-default-deny"}] == []
}

test_both_ways if {
	review := fixtures.with_parameters(
		holding([quota], [limits], [{"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}]),
		{"denyByDefault": ["Ingress", "Egress"]},
	)
	{finding.msg | some finding in isolation.warn} == {"namespace shop has no NetworkPolicy that denies Egress to all its Pods by default"} with input as review
	isolation.warn == set() with input as fixtures.with_parameters(holding([quota], [limits], [closed]), {"denyByDefault": ["Ingress", "Egress"]})
	isolation.warn == set() with input as fixtures.with_parameters(holding([quota], [limits], []), {"denyByDefault": []})
}

test_odd_objects if {
	odd := [null, 7, "x", ["x"], {"spec": null}, {"spec": 7}, {"spec": {"hard": 7, "limits": 7, "podSelector": 7, "policyTypes": 7, "ingress": 7}}]
	results := [1 | some one in odd; is_set(isolation.warn) with input as holding([one], [one], [one])]
	count(results) == count(odd)
}
