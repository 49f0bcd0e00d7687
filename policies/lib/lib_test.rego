package surefoot.lib_test

import data.surefoot.lib

test_parameters_over_defaults if {
	lib.params({"percent": 10, "minimum": 1}) == {"percent": 20, "minimum": 1} with input as {"parameters": {"percent": 20}}
	lib.params({"percent": 10}) == {"percent": 10} with input as {}
}

test_percent_is_rounded_up if {
	rows := [[10, 0, 0], [10, 1, 1], [10, 10, 1], [10, 11, 2], [10, 20, 2], [10, 21, 3], [10, 30, 3], [10, 70, 7], [100, 7, 7], [1, 200, 2], [33, 200, 66]]
	wrong := [row | some row in rows; lib.percent_of(row[0], row[1]) != row[2]]
	wrong == []
}

# The whole table, against the definition: the smallest whole number that is not below the share.
test_percent_for_every_count if {
	wrong := [[percent, n] |
		some percent in [1, 3, 10, 25, 33, 50, 99, 100]
		some n in numbers.range(0, 200)
		cap := lib.percent_of(percent, n)
		not smallest(cap, percent * n)
	]
	wrong == []
}

smallest(cap, hundredths) if {
	cap * 100 >= hundredths
	100 * (cap - 1) < hundredths
}

test_track if {
	lib.track({"metadata": {"labels": {"surefoot.dev/track": "canary"}}}) == "canary"
	others := [
		{"metadata": {"labels": {"surefoot.dev/track": "stable"}}},
		{"metadata": {"labels": {"surefoot.dev/track": 7}}},
		{"metadata": {"labels": null}},
		{"metadata": {}},
		{},
		null,
	]
	{lib.track(other) | some other in others} == {"stable"}
}

test_odd_members_are_absent if {
	lib.label({"metadata": {"labels": {"a": 1}}}, "a") == ""
	lib.label(null, "a") == ""
	lib.replicas({"spec": {"replicas": "3"}}) == 1
	lib.replicas({"spec": null}) == 1
	lib.replicas({}) == 1
	lib.replicas({"spec": {"replicas": 0}}) == 0
	lib.text(null, "name") == ""
}

test_names_by_glob if {
	spec := {
		"containers": [{"name": "model"}, {"name": "istio-proxy"}, {"name": null}, {}, 7],
		"initContainers": [{"name": "istio-init"}],
		"volumes": [{"name": "istio-certs"}],
	}
	review := {"request": {"object": {"spec": {"template": {"spec": spec}}}}}
	lib.names_like(["vault-*", 7, null, "istio-*"]) == {"istio-proxy", "istio-init"} with input as review
	lib.names_like([]) == set() with input as review
	lib.names_like(["*"]) == set() with input as {"request": {"object": {"spec": null}}}
}

test_pointer if {
	lib.pointer("containers", 0, ["readinessProbe"]) == "/spec/template/spec/containers/0/readinessProbe"
	lib.pointer("initContainers", 12, ["resources", "limits", "nvidia.com/gpu"]) == "/spec/template/spec/initContainers/12/resources/limits/nvidia.com~1gpu"
	lib.pointer("containers", 1, ["a~b/c"]) == "/spec/template/spec/containers/1/a~0b~1c"
}

test_every_handler_probes if {
	probed := {handler | some handler in ["httpGet", "grpc", "tcpSocket", "exec", "other"]; lib.probed({"readinessProbe": {handler: {}}}, "readinessProbe")}
	probed == {"httpGet", "grpc", "tcpSocket", "exec"}
	not lib.probed({"readinessProbe": {"periodSeconds": 10}}, "readinessProbe")
	not lib.probed({"readinessProbe": {"httpGet": null}}, "readinessProbe")
	not lib.probed({"readinessProbe": null}, "readinessProbe")
	not lib.probed({"livenessProbe": {"exec": {}}}, "readinessProbe")
}

test_patience if {
	lib.patience({}) == 30
	lib.patience({"initialDelaySeconds": 60, "periodSeconds": 5, "failureThreshold": 4}) == 80
	lib.patience({"initialDelaySeconds": null, "periodSeconds": "5"}) == 30
}
