package surefoot.resources_test

import data.surefoot.fixtures_test as fixtures
import data.surefoot.resources

model := "/spec/template/spec/containers/0/resources"

fetch := "/spec/template/spec/initContainers/0/resources"

at(base, rest) := concat("", [base, rest])

denied(patches) := findings if {
	findings := resources.deny with input as fixtures.create(patches)
}

with_parameters(patches, parameters) := fixtures.with_parameters(fixtures.create(patches), parameters)

test_good if {
	denied([]) == set()
	resources.defaults == set() with input as fixtures.create([])
	resources.params == {
		"require": ["requests.cpu", "requests.memory", "limits.cpu", "limits.memory"],
		"requests": {},
		"limits": {},
		"ignoreContainers": [],
	} with input as {}
}

test_pod_above_its_limit if {
	above := fixtures.add("/spec/template/spec/resources", {"requests": {"cpu": "4", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1024Mi"}})
	denied(above) == {{
		"code": "above-limit",
		"msg": "the pod requests 4 of cpu, above its limit of 2",
		"path": "/spec/template/spec/resources/requests/cpu",
		"fix": "cpu: 2, or a higher limit",
	}}
}

test_no_limit if {
	denied(fixtures.remove(at(model, "/limits/memory"))) == {{
		"code": "no-limit",
		"msg": `container "model" has no memory limit`,
		"path": at(model, "/limits/memory"),
		"fix": "memory: 4Gi, what it requests",
	}}
}

test_no_request if {
	neither := array.concat(fixtures.remove(at(model, "/limits/cpu")), fixtures.remove(at(model, "/requests/cpu")))
	denied(neither) == {
		{
			"code": "no-request",
			"msg": `container "model" has no cpu request`,
			"path": at(model, "/requests/cpu"),
			"fix": "cpu: 500m, or what it needs",
		},
		{
			"code": "no-limit",
			"msg": `container "model" has no cpu limit`,
			"path": at(model, "/limits/cpu"),
			"fix": "cpu: 500m, or what it needs",
		},
	}
}

test_request_else_limit if {
	denied(fixtures.remove(at(model, "/requests/cpu"))) == set()
	denied(fixtures.remove(at(model, "/requests/memory"))) == set()
}

# Zero is missing, also with a limit beside it.
test_zero_is_missing if {
	zeros := ["0", "0Gi", "0m", "0.0", "00", 0]
	passed := [zero | some zero in zeros; fixtures.codes(denied(fixtures.replace(at(model, "/requests/memory"), zero))) != {"no-request"}]
	passed == []
	limits := [zero |
		some zero in zeros
		not "no-limit" in fixtures.codes(denied(fixtures.replace(at(model, "/limits/memory"), zero)))
	]
	limits == []
}

test_every_notation if {
	notations := ["4", "4000m", "4e0", "4.0", ".5", "4k", "1E", 4, 0.5]
	refused := [one |
		some one in notations
		patches := [
			{"op": "replace", "path": at(model, "/requests/cpu"), "value": one},
			{"op": "replace", "path": at(model, "/limits/cpu"), "value": one},
		]
		denied(patches) != set()
	]
	refused == []
}

test_negative_and_empty_are_missing if {
	fixtures.codes(denied(fixtures.replace(at(model, "/requests/cpu"), "-1"))) == {"no-request"}
	fixtures.codes(denied(fixtures.replace(at(model, "/requests/cpu"), ""))) == {"no-request"}
	fixtures.codes(denied(fixtures.replace(at(model, "/requests/cpu"), null))) == {"no-request"}
}

test_init_containers_too if {
	findings := denied(fixtures.remove(at(fetch, "/limits")))
	fixtures.codes(findings) == {"no-limit"}
	fixtures.paths(findings) == {at(fetch, "/limits/cpu"), at(fetch, "/limits/memory")}
	{finding.msg | some finding in findings} == {`init container "fetch" has no cpu limit`, `init container "fetch" has no memory limit`}
	denied(fixtures.add("/spec/template/spec/ephemeralContainers", [{"name": "debug"}])) == set()
}

test_no_resources_at_all if {
	count(denied(fixtures.remove(model))) == 4
	count(denied(fixtures.replace(model, {}))) == 4
}

test_the_pod_stands_in if {
	bare := fixtures.remove(model)
	pod := {"limits": {"cpu": "8", "memory": "16Gi"}}
	denied(array.concat(bare, fixtures.add("/spec/template/spec/resources", pod))) == set()
	half := array.concat(bare, fixtures.add("/spec/template/spec/resources", {"limits": {"cpu": "8"}}))
	fixtures.paths(denied(half)) == {at(model, "/limits/memory"), at(model, "/requests/memory")}
	zero := array.concat(bare, fixtures.add("/spec/template/spec/resources", {"limits": {"cpu": "0", "memory": "16Gi"}}))
	fixtures.paths(denied(zero)) == {at(model, "/limits/cpu"), at(model, "/requests/cpu")}
	requests := array.concat(bare, fixtures.add("/spec/template/spec/resources", {"requests": {"cpu": "8", "memory": "16Gi"}}))
	fixtures.codes(denied(requests)) == {"no-limit"}
}

test_require if {
	bare := fixtures.remove(model)
	codes := fixtures.codes(resources.deny) with input as with_parameters(bare, {"require": ["limits.memory"]})
	codes == {"no-limit"}
	resources.deny == set() with input as with_parameters(bare, {"require": []})
	storage := resources.deny with input as with_parameters([], {"require": ["limits.ephemeral-storage"]})
	fixtures.paths(storage) == {
		at(model, "/limits/ephemeral-storage"),
		at(fetch, "/limits/ephemeral-storage"),
		"/spec/template/spec/containers/1/resources/limits/ephemeral-storage",
	}
	gpu := resources.deny with input as with_parameters(fixtures.remove("/spec/template/spec/containers/1"), {"require": ["requests.nvidia.com/gpu"]})
	gpu == {{
		"code": "no-request",
		"msg": `init container "fetch" has no nvidia.com/gpu request`,
		"path": at(fetch, "/requests/nvidia.com~1gpu"),
		"fix": "nvidia.com/gpu: 1, or what it needs",
	}}
}

test_ignored if {
	bare := fixtures.remove(model)
	resources.deny == set() with input as with_parameters(bare, {"ignoreContainers": ["mod*"]})
	above := fixtures.replace(at(model, "/requests/cpu"), "5")
	resources.deny == set() with input as with_parameters(above, {"ignoreContainers": ["mod*"]})
	gpus := fixtures.replace(at(model, "/requests/nvidia.com~1gpu"), "2")
	resources.deny == set() with input as with_parameters(gpus, {"ignoreContainers": ["mod*"]})
	added := resources.defaults with input as with_parameters(bare, {"ignoreContainers": ["mod*"], "limits": {"cpu": "1"}})
	added == set()
}

test_above_limit if {
	denied(fixtures.replace(at(model, "/requests/memory"), "9Gi")) == {{
		"code": "above-limit",
		"msg": `container "model" requests 9Gi of memory, above its limit of 8Gi`,
		"path": at(model, "/requests/memory"),
		"fix": "memory: 8Gi, or a higher limit",
	}}
}

test_above_in_every_notation if {
	above := ["4001m", "4.1", "5", "5e0", "1k", "4100m", 5]
	[one | some one in above; fixtures.codes(denied(fixtures.replace(at(model, "/requests/cpu"), one))) != {"above-limit"}] == []
	below := ["4000m", "4.0", "4", "4e0", "3999m", "1", 4]
	[one | some one in below; denied(fixtures.replace(at(model, "/requests/cpu"), one)) != set()] == []

	# One exponent anywhere, and no quantity is read by the quick way.
	exponent := array.concat(fixtures.replace(at(fetch, "/limits/memory"), "1e9"), fixtures.replace(at(model, "/requests/cpu"), "4001m"))
	fixtures.codes(denied(exponent)) == {"above-limit"}
}

test_a_request_without_a_limit_is_not_above if {
	codes := fixtures.codes(denied(fixtures.remove(at(model, "/limits/cpu"))))
	codes == {"no-limit"}
}

test_gpus if {
	request := at(model, "/requests/nvidia.com~1gpu")
	denied(fixtures.replace(request, "2")) == {{
		"code": "gpu-differs",
		"msg": `container "model" requests 2 of nvidia.com/gpu and its limit is 1; GPUs are not overcommitted, so both must be the same`,
		"path": request,
		"fix": "nvidia.com/gpu: 1, or leave the request out",
	}}
	fixtures.codes(denied(fixtures.replace(request, "0"))) == {"gpu-differs"}
	denied(fixtures.replace(request, "1000m")) == set()
	denied(fixtures.remove(request)) == set()
	without := denied(fixtures.remove(at(model, "/limits/nvidia.com~1gpu")))
	fixtures.codes(without) == {"gpu-differs"}
	{finding.fix | some finding in without} == {"nvidia.com/gpu: 1"}
	fixtures.paths(without) == {at(model, "/limits/nvidia.com~1gpu")}
	slices := {"requests": {"cpu": "1", "memory": "1Gi", "nvidia.com/mig-1g.5gb": "2"}, "limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/mig-1g.5gb": "1"}}
	fixtures.codes(denied(fixtures.replace(model, slices))) == {"gpu-differs"}
	other := {"requests": {"cpu": "1", "memory": "1Gi", "example.com/fpga": "1"}, "limits": {"cpu": "1", "memory": "1Gi", "example.com/fpga": "2"}}
	denied(fixtures.replace(model, other)) == set()
}

added(patches, parameters) := {entry.path: entry.value | some entry in entries} if {
	entries := resources.defaults with input as with_parameters(patches, parameters)
}

test_no_defaults_out_of_the_box if {
	added(fixtures.remove(model), {}) == {}
}

test_defaults if {
	parameters := {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}
	added(fixtures.remove(model), parameters) == {
		at(model, "/requests/cpu"): "500m",
		at(model, "/requests/memory"): "1Gi",
		at(model, "/limits/memory"): "2Gi",
	}
	added([], parameters) == {}
	added(fixtures.remove(model), {"requests": {"cpu": 1}}) == {at(model, "/requests/cpu"): "1"}
	added(fixtures.remove(fetch), {"limits": {"cpu": "1"}}) == {at(fetch, "/limits/cpu"): "1"}
}

test_defaults_do_not_contradict if {
	# A limit below what is requested, a request where the limit already says it, and defaults unlike each other.
	added(fixtures.remove(at(model, "/limits/memory")), {"limits": {"memory": "2Gi"}}) == {}
	added(fixtures.remove(at(model, "/limits/memory")), {"limits": {"memory": "4Gi"}}) == {at(model, "/limits/memory"): "4Gi"}
	added(fixtures.remove(at(model, "/requests/cpu")), {"requests": {"cpu": "500m"}}) == {}
	added(fixtures.remove(model), {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}) == {at(model, "/limits/cpu"): "1"}
	pod := fixtures.add("/spec/template/spec/resources", {"limits": {"cpu": "8"}})
	added(array.concat(fixtures.remove(model), pod), {"requests": {"cpu": "500m", "memory": "1Gi"}}) == {at(model, "/requests/memory"): "1Gi"}
}

test_zero_stays_for_its_owner_to_mend if {
	added(fixtures.replace(at(model, "/limits/cpu"), "0"), {"limits": {"cpu": "1"}}) == {}
}

test_fix_takes_the_parameter if {
	findings := resources.deny with input as with_parameters(fixtures.remove(at(model, "/limits/memory")), {"limits": {"memory": "8Gi"}})
	{finding.fix | some finding in findings} == {"memory: 8Gi"}
	low := resources.deny with input as with_parameters(fixtures.remove(at(model, "/limits/memory")), {"limits": {"memory": "2Gi"}})
	{finding.fix | some finding in low} == {"memory: 4Gi, what it requests"}
	requests := resources.deny with input as with_parameters(fixtures.remove(model), {"require": ["requests.cpu"], "requests": {"cpu": "250m"}})
	{finding.fix | some finding in requests} == {"cpu: 250m"}
	memory := resources.deny with input as with_parameters(fixtures.remove(model), {"require": ["limits.memory"]})
	{finding.fix | some finding in memory} == {"memory: 2Gi, or what it needs"}
}

survives(value) if {
	places := [
		"/spec", "/spec/template", "/spec/template/spec", "/spec/template/spec/containers", "/spec/template/spec/containers/0",
		model, at(model, "/limits"), at(model, "/limits/cpu"), at(model, "/requests"), at(model, "/requests/cpu"),
		at(model, "/requests/nvidia.com~1gpu"), at(model, "/limits/nvidia.com~1gpu"),
	]
	results := [1 |
		some place in places
		review := with_parameters(fixtures.replace(place, value), {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})
		{type_name(result) | some result in [resources.deny, resources.defaults]} == {"set"} with input as review
	]
	count(results) == count(places)
}

test_null_in_every_place if survives(null)

test_number_in_every_place if survives(7)

test_list_in_every_place if survives(["x"])
