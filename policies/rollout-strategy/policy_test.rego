package surefoot.rollout_strategy_test

import data.surefoot.fixtures_test as fixtures
import data.surefoot.rollout_strategy

seconds(patches) := values if {
	values := {entry.value | some entry in rollout_strategy.defaults; entry.path == "/spec/minReadySeconds"} with input as fixtures.create(patches)
}

model := "/spec/template/spec/containers/0"

proxy := "/spec/template/spec/containers/1"

test_parameters if {
	rollout_strategy.params == {} with input as {}
}

# The longest of: model 10 * 3 and 5 * 3, proxy 10 * 6 and 10 * 3.
test_as_long_as_the_probes_need if {
	seconds([]) == {60}
	seconds(fixtures.remove(proxy)) == {30}
	seconds(array.concat(fixtures.remove(proxy), fixtures.remove(concat("", [model, "/livenessProbe"])))) == {15}
	seconds(fixtures.add(concat("", [proxy, "/livenessProbe/initialDelaySeconds"]), 20)) == {80}
	seconds(fixtures.add(concat("", [proxy, "/readinessProbe/initialDelaySeconds"]), 200)) == {60}
	seconds(fixtures.replace(concat("", [proxy, "/readinessProbe/failureThreshold"]), 9)) == {90}
}

test_bounds if {
	seconds(fixtures.replace("/spec/template/spec/containers", [])) == {10}
	seconds(fixtures.replace(concat("", [proxy, "/livenessProbe/failureThreshold"]), 100)) == {599}
	seconds(fixtures.replace("/spec/progressDeadlineSeconds", 40)) == {39}
	seconds(fixtures.replace("/spec/progressDeadlineSeconds", 1)) == set()
	seconds(fixtures.remove("/spec/progressDeadlineSeconds")) == {60}
	seconds(fixtures.replace(concat("", [proxy, "/livenessProbe"]), {"exec": {}})) == {30}
}

test_other_containers_do_not_count if {
	slow := {"name": "slow", "livenessProbe": {"exec": {}, "periodSeconds": 100, "failureThreshold": 5}}
	seconds(fixtures.add("/spec/template/spec/initContainers/-", slow)) == {60}
	seconds(fixtures.add("/spec/template/spec/ephemeralContainers", [slow])) == {60}
}

survives(value) if {
	places := [
		model, concat("", [model, "/livenessProbe"]), concat("", [model, "/livenessProbe/periodSeconds"]),
		"/spec", "/spec/progressDeadlineSeconds", "/spec/template", "/spec/template/spec", "/spec/template/spec/containers",
	]
	results := [1 |
		some place in places
		is_set(rollout_strategy.defaults) with input as fixtures.create(fixtures.replace(place, value))
	]
	count(results) == count(places)
}

test_null_in_every_place if survives(null)

test_number_in_every_place if survives(7)

test_list_in_every_place if survives(["x"])
