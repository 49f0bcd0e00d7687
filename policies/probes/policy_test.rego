package surefoot.probes_test

import data.surefoot.fixtures_test as fixtures
import data.surefoot.probes

model := "/spec/template/spec/containers/0"

denied(patches) := codes if {
	codes := fixtures.codes(probes.deny) with input as fixtures.create(patches)
}

warned(patches) := codes if {
	codes := fixtures.codes(probes.warn) with input as fixtures.create(patches)
}

added(patches) := entries if {
	entries := probes.defaults with input as fixtures.create(patches)
}

# The model container replaced by one of an image, with ports and no probes.
serving(image, ports) := fixtures.replace(model, {
	"name": "model",
	"image": image,
	"ports": [{"containerPort": port, "protocol": "TCP"} | some port in ports],
})

test_good if {
	denied([]) == set()
	warned([]) == set()
	added([]) == set()
}

test_parameters if {
	probes.params == {"ignoreContainers": [], "servers": []} with input as {}
}

test_no_readiness if {
	findings := probes.deny with input as fixtures.create(fixtures.remove(concat("", [model, "/readinessProbe"])))
	findings == {{
		"code": "no-readiness",
		"msg": `container "model" has no readinessProbe, so it gets traffic before the model has loaded`,
		"path": "/spec/template/spec/containers/0/readinessProbe",
		"fix": "readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}",
	}}
}

test_no_liveness if {
	findings := probes.deny with input as fixtures.create(fixtures.remove(concat("", [model, "/livenessProbe"])))
	findings == {{
		"code": "no-liveness",
		"msg": `container "model" has no livenessProbe, so nothing restarts it when it hangs`,
		"path": "/spec/template/spec/containers/0/livenessProbe",
		"fix": "livenessProbe: {httpGet: {path: /v2/health/live, port: 8000}, failureThreshold: 6}",
	}}
}

test_fix_of_a_server_that_nobody_knows if {
	unknown := serving("registry.local/churn:2.4.0", [9000])
	fixes := {finding.fix | some finding in probes.deny} with input as fixtures.create(unknown)
	fixes == {
		"readinessProbe: {httpGet: {path: /ready, port: 9000}}  # the path that answers once the model is loaded",
		"livenessProbe: {httpGet: {path: /live, port: 9000}, failureThreshold: 6}  # a path that answers as long as the process is sound",
	}
	bare := fixtures.create(serving("registry.local/churn:2.4.0", []))
	without_ports := {finding.fix | some finding in probes.deny} with input as bare
	some fix in without_ports
	contains(fix, "port: 8080")
}

test_fix_of_a_server_without_a_path if {
	review := fixtures.create(serving("tensorflow/serving:2.16.1", [8500, 8501]))
	fixes := {finding.fix | some finding in probes.deny; finding.code == "no-liveness"} with input as review
	fixes == {"livenessProbe: {tcpSocket: {port: 8501}, failureThreshold: 6}"}
}

test_every_kind_of_probe_counts if {
	kinds := [
		{"httpGet": {"path": "/", "port": 8000}},
		{"grpc": {"port": 9000, "service": ""}},
		{"tcpSocket": {"port": 8000}},
		{"exec": {"command": ["true"]}},
	]
	refused := [kind |
		some kind in kinds
		denied(fixtures.replace(concat("", [model, "/readinessProbe"]), object.union(kind, {"periodSeconds": 10}))) != set()
	]
	refused == []
}

test_a_probe_that_asks_nothing_is_none if {
	denied(fixtures.replace(concat("", [model, "/readinessProbe"]), {"periodSeconds": 10})) == {"no-readiness"}
	denied(fixtures.replace(concat("", [model, "/readinessProbe"]), {"httpGet": null})) == {"no-readiness"}
	denied(fixtures.replace(concat("", [model, "/readinessProbe"]), null)) == {"no-readiness"}
}

test_only_regular_containers if {
	bare := {"name": "other", "image": "registry.local/other:1"}
	denied(fixtures.replace("/spec/template/spec/initContainers/0", bare)) == set()
	denied(fixtures.add("/spec/template/spec/initContainers/-", object.union(bare, {"restartPolicy": "Always"}))) == set()
	denied(fixtures.add("/spec/template/spec/ephemeralContainers", [bare])) == set()
	denied(fixtures.add("/spec/template/spec/containers/-", bare)) == {"no-readiness", "no-liveness"}
}

test_ignored if {
	bare := {"name": "istio-proxy", "image": "registry.local/other:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
	review := fixtures.create(fixtures.add("/spec/template/spec/containers/-", bare))
	probes.deny == set() with input as fixtures.with_parameters(review, {"ignoreContainers": ["istio-*"]})
	probes.warn == set() with input as fixtures.with_parameters(review, {"ignoreContainers": ["istio-*"]})
	fixtures.codes(probes.deny) == {"no-readiness", "no-liveness"} with input as fixtures.with_parameters(review, {"ignoreContainers": ["vault"]})
}

test_named_ports if {
	path := concat("", [model, "/readinessProbe/httpGet/port"])
	findings := probes.deny with input as fixtures.create(fixtures.replace(path, "metrics"))
	findings == {{
		"code": "unknown-port",
		"msg": `the readinessProbe of container "model" asks port "metrics", but the container declares no port of that name`,
		"path": path,
		"fix": "name a port that it declares: grpc, http",
	}}
	denied(fixtures.replace(path, "grpc")) == set()

	# A number is never judged, and a UDP port has a name too.
	denied(fixtures.replace(path, 12345)) == set()
	denied(fixtures.replace(concat("", [model, "/ports/0/protocol"]), "UDP")) == set()

	# Not the port of another container.
	denied(fixtures.replace(path, "public")) == {"unknown-port"}
}

test_named_port_where_none_is_declared if {
	patches := fixtures.remove("/spec/template/spec/containers/1/ports")
	findings := probes.deny with input as fixtures.create(patches)
	{finding.fix | some finding in findings} == {"ports: [{name: public, containerPort: 8080}], with the number the server listens on"}
}

test_no_startup if {
	findings := probes.warn with input as fixtures.create(fixtures.remove(concat("", [model, "/startupProbe"])))
	findings == {{
		"code": "no-startup",
		"msg": `container "model" runs Triton and has no startupProbe, so liveness may restart it while the model still loads`,
		"path": "/spec/template/spec/containers/0/startupProbe",
		"fix": "startupProbe: {httpGet: {path: /v2/health/ready, port: 8000}, periodSeconds: 10, failureThreshold: 30}",
	}}
}

test_no_startup_with_a_gpu if {
	patches := array.concat(
		fixtures.remove(concat("", [model, "/startupProbe"])),
		fixtures.replace(concat("", [model, "/image"]), "registry.local/churn:2.4.0"),
	)
	findings := probes.warn with input as fixtures.create(patches)
	{finding.msg | some finding in findings} == {`container "model" asks for a GPU and has no startupProbe, so liveness may restart it while the model still loads`}
	none := [{"limits": {"cpu": "1"}}, {"limits": {"nvidia.com/gpu": "0"}}, {"claims": [{"name": "gpu"}]}]
	[one | some one in none; warned(array.concat(patches, fixtures.replace(concat("", [model, "/resources"]), one))) != set()] == []
	some_gpus := [{"requests": {"amd.com/gpu": 1}}, {"limits": {"nvidia.com/mig-1g.5gb": "1"}}]
	[one | some one in some_gpus; warned(array.concat(patches, fixtures.replace(concat("", [model, "/resources"]), one))) != {"no-startup"}] == []
}

# Servers of one's own come from the configuration, and before those that are known.
bento := {"name": "Bento", "image": "acme/bento-*", "port": 3000, "ready": "/readyz", "live": "/livez", "startup": 115}

with_servers(servers, patches) := fixtures.with_parameters(fixtures.create(patches), {"servers": servers})

test_servers_of_ones_own if {
	image := "registry.local/acme/bento-churn:2.4.0"
	review := with_servers([bento], serving(image, [3000]))
	entries := probes.defaults with input as review
	entries == {
		{
			"path": concat("", [model, "/readinessProbe"]),
			"value": {"httpGet": {"path": "/readyz", "port": 3000}, "timeoutSeconds": 5},
		},
		{
			"path": concat("", [model, "/startupProbe"]),
			"value": {"httpGet": {"path": "/readyz", "port": 3000}, "timeoutSeconds": 5, "periodSeconds": 10, "failureThreshold": 12},
		},
	}
	fixes := {finding.fix | some finding in probes.deny; finding.code == "no-liveness"} with input as review
	fixes == {"livenessProbe: {httpGet: {path: /livez, port: 3000}, failureThreshold: 6}"}
	msgs := {finding.msg | some finding in probes.warn} with input as review
	msgs == {`container "model" runs Bento and has no startupProbe, so liveness may restart it while the model still loads`}

	# One that is known, told to be otherwise.
	triton := {"name": "our Triton", "image": "nvidia/tritonserver", "port": 8080, "ready": "/up"}
	changed := probes.defaults with input as with_servers([bento, triton], serving("nvcr.io/nvidia/tritonserver:24.05-py3", [8000, 8080]))
	{entry.value.httpGet | some entry in changed} == {{"path": "/up", "port": 8080}}

	# The others stay known.
	kept := probes.defaults with input as with_servers([bento], serving("nvcr.io/nvidia/tritonserver:24.05-py3", [8000]))
	count(kept) == 2
}

test_mistakes_in_servers_break_nothing if {
	wrong := [
		null, 7, "x", [], {}, {"image": "acme/bento-*"}, object.union(bento, {"port": "3000"}), object.union(bento, {"image": null}),
		object.union(bento, {"ready": 7}), object.union(bento, {"startup": "5m"}), object.union(bento, {"tag": 7}),
	]
	results := [1 |
		some one in wrong
		review := with_servers([one], serving("registry.local/acme/bento-churn:2.4.0", [3000]))
		probes.defaults == set() with input as review
		fixtures.codes(probes.deny) == {"no-readiness", "no-liveness"} with input as review
	]
	count(results) == count(wrong)
}

test_startup_budget if {
	threshold := concat("", [model, "/startupProbe/failureThreshold"])
	findings := probes.warn with input as fixtures.create(fixtures.replace(threshold, 180))
	findings == {{
		"code": "startup-budget",
		"msg": `container "model" may take 1800 s to start, but the rollout counts as failed after 600 s`,
		"path": "/spec/progressDeadlineSeconds",
		"fix": "progressDeadlineSeconds: 2160",
	}}
	warned(fixtures.replace(threshold, 60)) == set()
	warned(fixtures.replace(threshold, 61)) == {"startup-budget"}
	later := array.concat(fixtures.replace(threshold, 60), fixtures.add(concat("", [model, "/startupProbe/initialDelaySeconds"]), 1))
	warned(later) == {"startup-budget"}
	warned(array.concat(later, fixtures.replace("/spec/progressDeadlineSeconds", 601))) == set()
	warned(array.concat(later, fixtures.remove("/spec/progressDeadlineSeconds"))) == {"startup-budget"}
	ready := array.concat(later, fixtures.add("/spec/minReadySeconds", 30))
	fixes := {finding.fix | some finding in probes.warn} with input as fixtures.create(ready)
	fixes == {"progressDeadlineSeconds: 758"}
}

asks(question, period, threshold) := warned(fixtures.replace("/spec/template/spec/containers/0/livenessProbe", {
	"httpGet": question,
	"periodSeconds": period,
	"failureThreshold": threshold,
}))

# Readiness gives up after 5 s * 3.
test_one_handler if {
	liveness := concat("", [model, "/livenessProbe"])
	same := {"path": "/v2/health/ready", "port": "http", "scheme": "HTTP"}
	asks(same, 5, 3) == {"one-handler"}
	asks(same, 5, 4) == set()
	asks(object.union(same, {"port": 8000}), 5, 3) == {"one-handler"}
	asks(object.union(same, {"port": 8001}), 5, 3) == set()
	asks(object.union(same, {"path": "/v2/health/live"}), 5, 3) == set()
	asks(object.union(same, {"httpHeaders": [{"name": "Host", "value": "x"}]}), 5, 3) == set()
	delayed := {"httpGet": same, "periodSeconds": 5, "failureThreshold": 3, "initialDelaySeconds": 1}
	warned(fixtures.replace(liveness, delayed)) == set()
}

test_one_handler_of_another_kind if {
	kinds := [{"tcpSocket": {"port": 8000}}, {"grpc": {"port": 8001, "service": ""}}, {"exec": {"command": ["alive"]}}]
	silent := [kind |
		some kind in kinds
		patches := [
			{"op": "replace", "path": concat("", [model, "/livenessProbe"]), "value": kind},
			{"op": "replace", "path": concat("", [model, "/readinessProbe"]), "value": kind},
		]
		warned(patches) != {"one-handler"}
	]
	silent == []
}

test_defaults_of_a_server if {
	added(serving("nvcr.io/nvidia/tritonserver:24.05-py3", [8000, 8001, 8002])) == {
		{
			"path": "/spec/template/spec/containers/0/readinessProbe",
			"value": {"httpGet": {"path": "/v2/health/ready", "port": 8000}, "timeoutSeconds": 5},
		},
		{
			"path": "/spec/template/spec/containers/0/startupProbe",
			"value": {"httpGet": {"path": "/v2/health/ready", "port": 8000}, "timeoutSeconds": 5, "periodSeconds": 10, "failureThreshold": 30},
		},
	}
}

test_defaults_leave_what_is_there if {
	fixtures.paths(added(fixtures.remove(concat("", [model, "/startupProbe"])))) == {concat("", [model, "/startupProbe"])}
	added(fixtures.remove(concat("", [model, "/livenessProbe"]))) == set()
	no_probes := array.concat(fixtures.remove(concat("", [model, "/startupProbe"])), fixtures.remove(concat("", [model, "/readinessProbe"])))
	ignoring := fixtures.with_parameters(fixtures.create(no_probes), {"ignoreContainers": ["mod*"]})
	probes.defaults == set() with input as ignoring
}

# Wrong kinds in every place that is read: nothing breaks.
survives(value) if {
	places := [
		"", "/readinessProbe", "/readinessProbe/httpGet", "/readinessProbe/httpGet/port", "/readinessProbe/periodSeconds",
		"/livenessProbe", "/livenessProbe/httpGet", "/startupProbe", "/startupProbe/failureThreshold", "/ports", "/ports/0", "/ports/0/name",
		"/ports/0/containerPort", "/resources", "/resources/limits", "/name", "/image",
	]
	results := [1 |
		some place in places
		review := fixtures.create(fixtures.replace(concat("", [model, place]), value))
		{type_name(result) | some result in [probes.deny, probes.warn, probes.defaults]} == {"set"} with input as review
	]
	count(results) == count(places)
}

test_null_in_every_place if survives(null)

test_number_in_every_place if survives(7)

test_list_in_every_place if survives(["x"])

test_odd_templates if {
	odd := [null, 7, ["x"]]
	places := ["/spec", "/spec/template", "/spec/template/spec", "/spec/template/spec/containers", "/spec/progressDeadlineSeconds"]
	results := [1 |
		some value in odd
		some place in places
		review := fixtures.create(fixtures.replace(place, value))
		{type_name(result) | some result in [probes.deny, probes.warn, probes.defaults]} == {"set"} with input as review
	]
	count(results) == count(odd) * count(places)
}
